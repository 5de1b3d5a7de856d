"""Who tells a scraper of a run: an actor that all runs on a cluster share, or the run's own process.

A Ray actor is a process, which takes time of the processor to start, and a little all the time: Ray wakes each worker a
hundred times a second (``python -m benchmarks.metrics`` says how much). On a cluster that is nothing, and there the
exporter is to be found on the head node, whichever node a driver is on. A run that has started Ray for itself shares
its exporter with nobody, so it needs no process for it; but for one that strangers can reach, who had better not come
upon the driver.
"""

from __future__ import annotations

from typing import Any, Protocol

import ray
from ray.exceptions import ActorDiedError

from actors.metrics.exporter import Exporter, exporter
from actors.metrics.recording import Ledger
from actors.metrics.tally import Tally
from cluster.config.observability import MetricsConfig
from serve.http_limits import is_loopback

ANSWER_TIMEOUT_S = 30.0


class Exporting(Protocol):
    """An exporter, as the driver of a run sees it.

    Attributes:
        is_elsewhere: whether it is another process, which takes time to come up and can end before the run.
    """

    is_elsewhere: bool

    def ask(self) -> None:
        """Have it know the run, without waiting for it; said again, it changes nothing."""

    def port(self, timeout_s: float) -> int | None:
        """Have it listen by now, where a port is named: at which one.

        Raises:
            OSError: the address cannot be listened at, or it took too long.
            RayError: there is none.
        """

    def finish(self) -> int:
        """What has been counted by now is what is told to every scrape after the one of this number."""

    def scrapes(self) -> int:
        """The number of the last scrape that was answered."""

    def push(self, run: str, gateway: str) -> None:
        """Leave what was counted with a Pushgateway."""

    def close(self) -> None:
        """Have it tell no more of the run."""


def exporting(config: MetricsConfig, ledger: Ledger, *, is_alone: bool) -> Exporting:
    """The exporter of a run.

    Args:
        is_alone: whether the Ray cluster is this run's own.
    """
    kind = OwnExporter if is_alone and is_loopback(config.host) else SharedExporter
    return kind(config, ledger)


class OwnExporter:
    """In this process."""

    is_elsewhere = False

    def __init__(self, config: MetricsConfig, ledger: Ledger) -> None:
        self._config, self._ledger = config, ledger
        self._exporter = Exporter()

    def ask(self) -> None:
        self._exporter.watch(self._ledger.name, {})

    def port(self, timeout_s: float) -> int | None:
        port = self._config.port
        return None if port is None else self._exporter.serve(self._config.host, port)

    def finish(self) -> int:
        return self._exporter.finish(self._ledger.name)

    def scrapes(self) -> int:
        return self._exporter.scrapes()

    def push(self, run: str, gateway: str) -> None:
        self._exporter.push(self._ledger.name, run, gateway)

    def close(self) -> None:
        self._exporter.stop()
        self._exporter.forget(self._ledger.name)


class SharedExporter:
    """An actor, which runs that name one port share; see ``actors.metrics.exporter``."""

    is_elsewhere = True

    def __init__(self, config: MetricsConfig, ledger: Ledger) -> None:
        self._config, self._ledger = config, ledger
        self._actor: Any = None
        self._asked: list[Any] = []
        self._told: dict[str, Tally] = {}  # an exporter started anew cannot ask the nodes that were lost
        self._listened_at: int | None = None

    def ask(self) -> None:
        """Asked again and again, since one that was started anew knows nothing."""
        if self._actor is None:
            # Kept from now on: an actor ends with the handle of who made it, whoever else found it by its name.
            self._actor = exporter(self._config.host, self._config.port or 0, self._ledger.name)
        self._asked = [self._actor.watch.remote(self._ledger.name, self._told)]
        if self._config.port is not None:
            # At the same port as before, so that a scraper's series go on.
            self._asked += [self._actor.serve.remote(self._config.host, self._listened_at or self._config.port)]

    def port(self, timeout_s: float) -> int | None:
        """One that has ended is made anew: it may have belonged to another run, and ended with it."""
        try:
            return self._answered(timeout_s)
        except ActorDiedError:
            self._actor = None
            self.ask()
            return self._answered(timeout_s)

    def finish(self) -> int:
        return int(self._reply(self._actor.finish.remote(self._ledger.name)))

    def scrapes(self) -> int:
        return int(self._reply(self._actor.scrapes.remote()))

    def push(self, run: str, gateway: str) -> None:
        self._reply(self._actor.push.remote(self._ledger.name, run, gateway))

    def close(self) -> None:
        if self._actor is not None:
            actor, self._actor = self._actor, None
            self._reply(actor.forget.remote(self._ledger.name))

    def _answered(self, timeout_s: float) -> int | None:
        try:
            self._told, *ports = ray.get(self._asked, timeout=timeout_s)
        except OSError as error:
            if not isinstance(error, TimeoutError):
                self._listened_at = None  # somebody has taken its port; another will do, if any would
            raise
        self._listened_at = ports[0] if ports else None
        return self._listened_at

    def _reply(self, asked: Any) -> Any:
        return ray.get(asked, timeout=ANSWER_TIMEOUT_S)
