"""The deployments of a session: embedded model servers and the evaluator.

Everything starts synchronously, outside any event loop, so that Ctrl-C works while this waits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import ray
from ray import serve as ray_serve
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatus

from cluster.display.logs import last_line, log_failures
from cluster.session.interrupts import raise_if_stopped
from cluster.session.models import EmbeddedUrls
from cluster.session.ray_connection import EMBEDDED_CPUS, distinct_hosts
from gpo.errors import ClusterError, ConfigError, ModelUnavailable
from serve.embedded_model import HOST, EmbeddedModelServer, EmbeddedModelSpec, free_port

log = logging.getLogger(__name__)

_EMBEDDED_RESTARTS = -1
"""Unlimited: calls have a limited number of attempts, so a call can crash its server only so often."""
_START_TIMEOUT_S = 180.0
_DIRECT = build_opener(ProxyHandler({}))
"""Opens URLs of our own servers, which no proxy of the environment reaches."""


@contextmanager
def embedded_models(specs: Sequence[EmbeddedModelSpec]) -> Iterator[EmbeddedUrls]:
    """Start a server for each embedded model, and wait until it is healthy; they end with the context.

    Raises:
        ConfigError: the cluster has several machines; the servers listen on the loopback interface of one.
        ModelUnavailable: a server did not start.
    """
    if specs and distinct_hosts() > 1:
        raise ConfigError(
            "models", "an embedded model works on one machine, and this cluster has several", "use an endpoint instead"
        )
    actor_class: Any = ray.remote(EmbeddedModelServer)
    actors: list[Any] = []
    try:
        urls: dict[EmbeddedModelSpec, str] = {}
        for spec in specs:
            port = free_port()
            actor = actor_class.options(num_cpus=EMBEDDED_CPUS, max_restarts=_EMBEDDED_RESTARTS).remote(spec, port)
            actors.append(actor)
            urls[spec] = _healthy(actor, spec, port)
        yield urls
    finally:
        for actor in actors:
            with log_failures("ending the embedded model"):
                ray.kill(actor)


def _healthy(actor: Any, spec: EmbeddedModelSpec, port: int) -> str:
    deadline = time.monotonic() + _START_TIMEOUT_S
    try:
        url: str = ray.get(actor.base_url.remote(), timeout=_START_TIMEOUT_S)
    except (ray.exceptions.RayError, TimeoutError) as error:
        raise ModelUnavailable(f"the embedded model {spec.name} did not start: {last_line(error)}") from None
    while not _answers(f"http://{HOST}:{port}/health"):
        raise_if_stopped()
        if time.monotonic() > deadline:
            raise ModelUnavailable(f"the embedded model {spec.name} was not ready within {_START_TIMEOUT_S:.0f} s")
        time.sleep(0.1)
    return url


def _answers(url: str) -> bool:
    try:
        with _DIRECT.open(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except (URLError, OSError):
        return False


def start_serve() -> None:
    """Start Serve without HTTP: an evaluator that only a run calls needs none."""
    silence_serve()
    ray_serve.start(proxy_location="Disabled")


def silence_serve() -> None:
    """Let Serve log errors only. Its level would not do: importing and starting Serve both set it to INFO."""
    logging.getLogger("ray.serve").addFilter(_is_error)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


@contextmanager
def deployed(app: ray_serve.Application, name: str, route_prefix: str | None) -> Iterator[DeploymentHandle[Any]]:
    """Deploy a Serve application and wait until it runs; deleted with the context, even if it never ran.

    Raises:
        ClusterError: it does not start.
    """
    target = ray_serve.RunTarget(app, name=name, route_prefix=route_prefix)
    try:
        try:
            (handle,) = ray_serve.run_many([target], wait_for_applications_running=False)
            problem = _problem(name)
        except (RuntimeError, ray.exceptions.RayError) as error:
            problem = last_line(error)
        if problem:
            raise ClusterError(
                f"the evaluator did not start: {problem} See Serve's logs on the cluster, and check that this version "
                "of gpo is installed on all nodes"
            )
        yield handle
    finally:
        with log_failures("ending the evaluator"):
            ray_serve.delete(name, _blocking=False)


def _problem(name: str) -> str:
    """Wait until the application runs; returns why it failed, or nothing. Serve's own wait polls only each second."""
    while True:
        raise_if_stopped()
        app = ray_serve.status().applications.get(name)
        if app is not None and app.status is ApplicationStatus.RUNNING:
            return ""
        if app is not None and app.status in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY):
            return app.message.strip().rpartition("\n")[2] or app.status.value
        time.sleep(0.25)
