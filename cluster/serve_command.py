"""``gpo serve``: the evaluator over HTTP until it is told to stop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from ipaddress import ip_address

from ray import serve as ray_serve
from rich.console import Console

from cluster.build import build_evaluators, embedded_specs
from cluster.config import RunConfig
from cluster.ray_session import ray_session
from cluster.services import EMBEDDED_CPUS, embedded_models
from gpo.errors import ConfigError
from gpo.tasks import Task
from serve.embedded_model import free_port
from serve.evaluator import evaluator_app
from serve.ingress import TOKEN_VARIABLE, ingress_app

_APP = "gpo-evaluator"


def needs_token(host: str, address: str) -> bool:
    """Whether strangers could reach the interface: beyond loopback, or by the proxy of a cluster that others set up."""
    try:
        loopback = ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    return not loopback or address != "local"


async def serve_evaluator(
    config: RunConfig, tasks: Sequence[Task], host: str, port: int, address: str, console: Console
) -> None:
    """Serve until cancelled.

    Raises:
        ConfigError: a token is needed and none is set.
    """
    has_token = bool(os.environ.get(TOKEN_VARIABLE))
    if needs_token(host, address) and not has_token:
        raise ConfigError(
            "--host", f"{host!r} can be reached by others, and no token is set", f"export {TOKEN_VARIABLE}=…"
        )
    port = port or free_port()
    specs = embedded_specs(config)
    cluster = config.cluster
    cpus = cluster.evaluator_replicas * cluster.evaluator_cpus + len(specs) * EMBEDDED_CPUS + 1
    with console.status("Starting Ray …"), ray_session(address, cpus_needed=cpus):
        async with embedded_models(specs) as urls:
            evaluators = build_evaluators(config, tasks, urls)
            app = evaluator_app(evaluators, replicas=cluster.evaluator_replicas, cpus=cluster.evaluator_cpus)
            ray_serve.start(http_options={"host": host, "port": port})
            ray_serve.run(ingress_app(app, guarded=has_token), name=_APP, route_prefix="/")
            guard = "with a bearer token" if has_token else "without a token"
            console.print(
                f"Serving {len(tasks)} tasks at http://{host}:{port}/v1/evaluate ({guard}; described at /docs). "
                "Ctrl-C ends it.",
                highlight=False,
                soft_wrap=True,
            )
            try:
                await asyncio.Event().wait()
            finally:
                ray_serve.delete(_APP, _blocking=False)
