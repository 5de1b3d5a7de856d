"""``gpo serve``: the evaluator and runs over HTTP, until SIGINT or SIGTERM."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import ray
from ray import serve as ray_serve
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console

from actors.limiter import LimiterActor
from cluster.config import RunConfig
from cluster.display.live_view import view_for
from cluster.display.logs import log_failures
from cluster.monitoring.run_metrics import exported
from cluster.results.run_record import RunRecord
from cluster.serving.folders import RunFolders
from cluster.serving.runs import RunService, Settings
from cluster.session.budget import BudgetTracker
from cluster.session.deployments import deployed, silence_serve
from cluster.session.embedded import EmbeddedModels
from cluster.session.interrupts import run_interruptibly
from cluster.session.models import Access, RefusedParameters, build_evaluators, embedded_specs
from cluster.session.ray_connection import EMBEDDED_CPUS, ray_connection
from gpo.data.task import Task
from gpo.errors import ClusterError, ConfigError
from gpo.sockets import bound_socket
from gpo.text import last_line
from serve.embedded_model import free_port
from serve.evaluator import evaluator_app
from serve.http_errors import TIMEOUT_S
from serve.http_limits import BODY_TIMEOUT_S, is_loopback
from serve.ingress import TOKEN_VARIABLE, ingress_app
from serve.runs import RunsActor

_APP = "gpo-evaluator"
_RUNS_CPUS = 0.1
_AT_ONCE, _CLOSE_S = 1000, 40.0
_DRAIN_S = 20.0
"""Seconds for which a replica may finish its requests."""


def needs_token(host: str, address: str) -> bool:
    """Whether others can reach the interface: beyond loopback, or through the proxy of an existing cluster."""
    return not is_loopback(host) or address != "local"


def serve_evaluator(
    config: RunConfig,
    tasks: Sequence[Task],
    host: str,
    port: int,
    address: str,
    console: Console,
    refused: RefusedParameters,
    folders: RunFolders | None,
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        refused: parameters that are known to be refused.
        folders: where runs are, and what they may read; ``None`` starts no runs.

    Raises:
        ConfigError: a token is required but not set, the port is taken, or another service has the folder of runs.
        ClusterError: the evaluator does not start, or a Serve without HTTP is already running.
    """
    token = os.environ.get(TOKEN_VARIABLE, "")
    if needs_token(host, address) and not token:
        raise ConfigError("--host", f"others can reach {host!r}, but no token is set", f"export {TOKEN_VARIABLE}=…")
    if not token.isascii():
        raise ConfigError(TOKEN_VARIABLE, "has characters that an HTTP header cannot hold", "use ASCII characters")
    port = port or free_port()
    if address == "local":
        bound_socket(host, port).close()  # an address that is taken is an error now
    specs = embedded_specs(config)
    cluster = config.cluster
    cpus = config.num_replicas * cluster.evaluator_cpus + len(specs) * EMBEDDED_CPUS + 1
    with ExitStack() as stack:
        with view_for(console) as view:
            view.status("Starting Ray" if address == "local" else f"Connecting to Ray at {address}")
            stack.enter_context(ray_connection(address, cpus_needed=cpus))
            metrics = stack.enter_context(exported(config.metrics, _APP, is_alone=address == "local"))
            view.status("Starting the evaluator")
            models = stack.enter_context(EmbeddedModels(specs))
            where = _start_http(host, port)
            access = Access(models.urls, LimiterActor(), budget_name=_APP, refused=refused)
            record = RunRecord(_APP, started_at=time.time())
            budget = BudgetTracker(config.budget, access, record)
            asyncio.run(budget.open())
            app = evaluator_app(
                build_evaluators(config, tasks, access),
                replicas=config.num_replicas,
                examples_at_once=config.examples_at_once,
                cpus=cluster.evaluator_cpus,
                drain_s=_DRAIN_S,
                start_recording=metrics.recorder_for("evaluator"),
            )
            runs, unfinished = None, 0
            if folders is not None:
                view.status("Starting the runs")
                settings = Settings(
                    config, folders.runs, folders.allowed, folders.max_runs, LimiterActor(), access.urls
                )
                runs, unfinished = stack.enter_context(_runs_actor(settings))
            ingress = ingress_app(app, guarded=bool(token), runs=runs)
            stack.enter_context(deployed(ingress, _APP, route_prefix="/"))
            models.wait()
            metrics.ready()
        guard = "with a bearer token" if token else "without a token"
        console.print(
            f"Serving {len(tasks)} tasks at {where} ({guard}; described at /docs). Ctrl-C ends it.",
            highlight=False,
            soft_wrap=True,
        )
        if folders is not None:
            resumed = f"; {unfinished} of them continue" if unfinished else ""
            console.print(f"Runs are in {folders.runs}{resumed}.", highlight=False, markup=False, soft_wrap=True)
        with suppress(KeyboardInterrupt):
            run_interruptibly(_watch(budget, runs))


async def _watch(budget: BudgetTracker, runs: RunsActor | None) -> None:
    """Keep the spending up to date, so that a restarted limiter can restore it; let a restarted actor resume its runs.

    The actor of the runs does nothing until it is called.
    """
    while True:
        await asyncio.sleep(1.0)
        await budget.update()
        if runs is not None:
            with suppress(ray.exceptions.RayError):
                await runs.handle.open.remote()


@contextmanager
def _runs_actor(settings: Settings) -> Iterator[tuple[RunsActor, int]]:
    """An actor on this machine that carries out runs, and the number of runs that it resumes.

    Raises:
        ConfigError: another service works in the folder, or it cannot be used.
        ClusterError: the actor does not start.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor_class: Any = ray.remote(RunService)
    actor = actor_class.options(
        num_cpus=_RUNS_CPUS, max_restarts=-1, max_concurrency=_AT_ONCE, scheduling_strategy=here
    ).remote(settings)
    try:
        try:
            unfinished: int = ray.get(actor.open.remote())
        except ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, ConfigError) else ClusterError(last_line(error))) from None
        except ray.exceptions.RayError as error:
            raise ClusterError(f"the process of the runs did not start: {last_line(error)}") from None
        yield RunsActor(actor), unfinished
    finally:
        with log_failures("ending the runs"):
            ray.get(actor.close.remote(), timeout=_CLOSE_S)
            ray.kill(actor)


def _start_http(host: str, port: int) -> str:
    """Start Serve's HTTP proxy; its address. A Serve that is already running keeps its address.

    Raises:
        ClusterError: a Serve without HTTP is already running.
    """
    try:
        ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    except ValueError:
        # The interface has its own time limits; this one also ends requests that never reach it.
        silence_serve()
        ray_serve.start(http_options={"host": host, "port": port, "request_timeout_s": TIMEOUT_S + 2 * BODY_TIMEOUT_S})
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1/evaluate"
    if not ray_serve.status().proxies:
        raise ClusterError("a Serve without HTTP is running on this cluster; stop it with 'serve shutdown' first")
    return "/v1/evaluate, at the address of the Serve that is already running on this cluster"
