"""The servers of embedded models, while a session is open."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import ray

from cluster.display.logs import log_failures
from cluster.session.interrupts import raise_if_stopped
from cluster.session.models import EmbeddedUrls
from cluster.session.ray_connection import EMBEDDED_CPUS, distinct_hosts
from gpo.errors import ConfigError, ModelUnavailable
from gpo.text import last_line
from serve.embedded_model import HOST, EmbeddedModelServer, EmbeddedModelSpec, free_port

_RESTARTS = -1
"""Unlimited: calls have a limited number of attempts, so a call can crash its server only so often."""
_START_TIMEOUT_S, _POLL_S = 180.0, 0.1
_DIRECT = build_opener(ProxyHandler({}))
"""Opens URLs of our own servers, which no proxy of the environment reaches."""


class EmbeddedModels:
    """A context that starts a server for each embedded model, and ends them.

    Loading a model takes seconds, so entering the context does not wait for it; ``wait`` does.

    Attributes:
        urls: the servers' addresses, known from the beginning.

    Raises:
        ConfigError: the cluster has several machines; the servers listen on the loopback interface of one.
    """

    def __init__(self, specs: Sequence[EmbeddedModelSpec]) -> None:
        if specs and distinct_hosts() > 1:
            raise ConfigError(
                "models",
                "an embedded model works on one machine, and this cluster has several",
                "use an endpoint instead",
            )
        self._ports = {spec: free_port() for spec in specs}
        self._actors: dict[EmbeddedModelSpec, Any] = {}
        self.urls: EmbeddedUrls = {spec: f"http://{HOST}:{port}/v1" for spec, port in self._ports.items()}

    def __enter__(self) -> EmbeddedModels:
        actor_class: Any = ray.remote(EmbeddedModelServer)
        for spec, port in self._ports.items():
            actor = actor_class.options(num_cpus=EMBEDDED_CPUS, max_restarts=_RESTARTS).remote(spec, port)
            self._actors[spec] = actor
        return self

    def __exit__(self, *exception: object) -> None:
        for actor in self._actors.values():
            with log_failures("ending the embedded model"):
                ray.kill(actor)

    def wait(self) -> None:
        """Wait until every server answers.

        Raises:
            ModelUnavailable: a server did not start.
        """
        for spec, actor in self._actors.items():
            _await_health(actor, spec, self._ports[spec])


def _await_health(actor: Any, spec: EmbeddedModelSpec, port: int) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S

    def require_time() -> None:
        raise_if_stopped()
        if time.monotonic() > deadline:
            raise ModelUnavailable(f"the embedded model {spec.name} was not ready within {_START_TIMEOUT_S:.0f} s")

    ready = actor.__ray_ready__.remote()
    while not ray.wait([ready], timeout=_POLL_S)[0]:
        require_time()
    try:
        ray.get(ready)
    except ray.exceptions.RayError as error:
        raise ModelUnavailable(f"the embedded model {spec.name} did not start: {last_line(error)}") from None
    while not _answers(f"http://{HOST}:{port}/health"):
        require_time()
        time.sleep(_POLL_S)


def _answers(url: str) -> bool:
    try:
        with _DIRECT.open(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except (URLError, OSError):
        return False
