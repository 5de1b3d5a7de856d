"""Answers the scrapes of a Prometheus with the newest numbers of each run.

A run that starts Ray itself and listens on loopback has an ``Exporter`` in its driver. On a shared cluster, all runs
that name one port share an actor on the head node. The actor holds only the numbers that drivers sent within the last
minute, so an actor that Ray restarts answers as before as soon as every driver has sent its numbers again.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from threading import Lock
from typing import Any

import ray
from prometheus_client import push_to_gateway

from actors.metrics.counts import Numbers, registry, total
from actors.metrics.scrape_server import ScrapeServer

_KEPT_S = 60.0
"""How long numbers are exported without an update: the driver that sent them has died."""
_RELEASED_S = 2.0
_NAMESPACE = "gpo"
_PUSH_JOB = "gpo"
_HEAD = {"node:__internal_head__": 0.001}


class Exporter:
    """Serves the newest numbers of all sessions. Safe in several threads.

    Args:
        clock: seconds that only rise.
        kept_s: how long numbers are exported that are not updated, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, kept_s: float = _KEPT_S) -> None:
        self._clock, self._kept_s = clock, kept_s
        self._numbers: dict[str, tuple[float, Numbers]] = {}
        self._server: ScrapeServer | None = None
        self._lock = Lock()

    def update(self, session: str, numbers: Numbers, host: str, port: int) -> tuple[int, int]:
        """Replace the numbers of a session; start to listen at the first call.

        Args:
            port: 0 takes a free one.

        Returns:
            The port, and how many scrapes had begun before; later scrapes see these numbers.

        Raises:
            OSError: the address cannot be listened at.
        """
        with self._lock:
            self._numbers[session] = self._clock(), numbers
            if self._server is None:
                self._server = self._listening(host, port)
            return self._server.port, self._server.begun

    def _listening(self, host: str, port: int) -> ScrapeServer:
        """Listen; the process of an exporter that has just ended may hold the port for a moment longer."""
        deadline = time.monotonic() + _RELEASED_S
        while True:
            try:
                return ScrapeServer(host, port, registry(self._total))
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                    raise
            time.sleep(0.1)

    def answered(self) -> int:
        """The number of the last scrape that was answered."""
        return 0 if self._server is None else self._server.answered

    def forget(self, session: str) -> None:
        """Export a session no longer."""
        with self._lock:
            self._numbers.pop(session, None)

    def close(self) -> None:
        """Answer no more scrapes."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def _total(self) -> Numbers:
        now = self._clock()
        with self._lock:
            self._numbers = {name: one for name, one in self._numbers.items() if now - one[0] <= self._kept_s}
            return total(numbers for _, numbers in self._numbers.values())


def push(numbers: Numbers, run: str, gateway: str) -> None:
    """Leave numbers with a Pushgateway; they replace those of the last push for the run.

    Raises:
        OSError: the gateway does not take them.
    """
    push_to_gateway(gateway, _PUSH_JOB, registry(lambda: numbers), grouping_key={"run": run})


ExporterActor = ray.remote(Exporter)


def exporter_actor(host: str, port: int, session: str) -> Any:
    """The actor at an address: all runs on the cluster that name the port share it; with port 0 it is the session's."""
    actor_class: Any = ExporterActor
    name = f"metrics-{host}-{port}" if port else f"metrics-{session}"
    return actor_class.options(
        name=name, namespace=_NAMESPACE, get_if_exists=True, num_cpus=0, max_restarts=-1, max_concurrency=16,
        resources=_HEAD,
    ).remote()  # fmt: skip
