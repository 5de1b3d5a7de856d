"""The metrics of a run, from its driver: who counts, who tells, and what happens at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from threading import Event, Thread
from typing import Any
from uuid import uuid4

import ray
from ray.exceptions import ActorDiedError, RayError

from actors.metrics.catalogue import Metric
from actors.metrics.exporter import exporter
from actors.metrics.recording import Ledger
from actors.metrics.tally import Tally
from cluster.config import RunConfig
from cluster.config.metrics import MetricsConfig
from cluster.metrics_view import MetricsView
from cluster.outputs import RunRecord
from cluster.progress import View
from cluster.services import unfailing
from cluster.targets import announce, withdraw
from gpo.errors import ConfigError

_LOOK_EVERY_S = 2.0
_START_TIMEOUT_S = 60.0
_ANSWER_TIMEOUT_S = 30.0
_LOOPBACK = ("127.0.0.1", "localhost", "::1", "0.0.0.0", "::")  # noqa: S104 - compared with, not listened at


class Metrics:
    """What a run's driver does about metrics; nothing where they are off.

    Args:
        run: what all that is counted belongs to.
    """

    def __init__(self, config: MetricsConfig, run: str) -> None:
        self._config, self._run = config, run
        self._ledger = Ledger(run, f"gpo-metrics-{uuid4().hex}") if config.is_on else None
        self._view: MetricsView | None = None
        self._book = self._ledger.book("driver") if self._ledger else None
        self._exporter: Any = None
        self._serving: Any = None
        self._told: dict[str, Tally] = {}  # an exporter started anew cannot ask the nodes that were lost
        self._over = Event()
        self._announced: int | None = None
        self._watching = Thread(target=self._watch, name="metrics", daemon=True)

    def recording(self, actor: str) -> Callable[[], Callable[[], object]] | None:
        """To be called at the start of a process that calls models, and what it returns before its end; pickles."""
        return None if self._ledger is None else partial(self._ledger.record, actor)

    def beside(self, view: View, config: RunConfig, record: RunRecord) -> View:
        """A view that counts what it is shown, before the one that people see."""
        self._end_view()
        if self._book is None:
            return view
        self._view = MetricsView(view, self._book, record, config.budget)
        return self._view

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Say what a gauge is from now on, such as a sweep's trials by state.

        Args:
            labels: values but for the first one, ``run``, in the metric's order.
        """
        if self._book is not None:
            self._book.count(metric, self._run, *labels).set(value)

    def start(self) -> None:
        """Have the exporter started, without waiting for it."""
        if self._ledger is not None:
            self._ask()

    def ready(self) -> None:
        """Wait until scrapes are answered.

        Raises:
            ConfigError: the address cannot be listened at.
        """
        if self._ledger is None:
            return
        where = f"{self._config.host}:{self._config.port}"
        try:
            self._announce(self._port(_START_TIMEOUT_S))
        except OSError as error:  # as whatever came out of the actor
            raise ConfigError(
                "metrics.port", f"{where} cannot be listened at ({_reason(error)})", "name another, or 0 for a free one"
            ) from None
        except RayError as error:
            raise ConfigError("metrics", f"the exporter did not start ({_reason(error)})", "leave it out") from None
        self._watching.start()

    def finish(self) -> None:
        """The run is over: its last values are told, and waited for, unless something has gone wrong."""
        if self._ledger is None or self._exporter is None:
            return
        is_well = sys.exception() is None
        self._end_view()
        self._stop_watching()
        with unfailing("exporting the last metrics"):
            self._ask()
            self._port(_ANSWER_TIMEOUT_S)  # it may have belonged to another run, and ended with it
            scrapes = ray.get(self._exporter.finish.remote(self._ledger.name), timeout=_ANSWER_TIMEOUT_S)
            if self._config.pushgateway is not None:
                push = self._exporter.push.remote(self._ledger.name, self._run, self._config.pushgateway)
                ray.get(push, timeout=_ANSWER_TIMEOUT_S)
            if self._config.port is not None and is_well:
                self._await_scrape(scrapes)

    def close(self) -> None:
        """Leave nothing behind."""
        self._stop_watching()
        if self._ledger is None:
            return
        withdraw(self._run)
        if self._exporter is not None:
            with unfailing("removing the metrics"):
                ray.get(self._exporter.forget.remote(self._ledger.name), timeout=_ANSWER_TIMEOUT_S)
            self._exporter = self._serving = None

    def _end_view(self) -> None:
        if self._view is not None:
            self._view.end()
            self._view = None

    def _stop_watching(self) -> None:
        self._over.set()
        if self._watching.ident is not None:
            self._watching.join()

    def _await_scrape(self, scrapes: int) -> None:
        deadline = time.monotonic() + self._config.linger_s
        while time.monotonic() < deadline:
            if ray.get(self._exporter.scrapes.remote(), timeout=_ANSWER_TIMEOUT_S) > scrapes:
                return
            time.sleep(0.1)

    def _ask(self) -> None:
        """Have an exporter listen and know this run; asked again and again, since one started anew knows nothing."""
        assert self._ledger is not None  # noqa: S101
        port = self._config.port or 0
        if self._exporter is None:
            # Kept from now on: an actor ends with the handle of who made it, whoever else found it by its name.
            self._exporter = exporter(self._config.host, port, self._ledger.name)
        host = self._config.host if self._config.port is not None else "127.0.0.1"
        # At the same port as before, so that a scraper's series go on.
        serving = self._exporter.serve.remote(host, self._announced or port)
        self._serving = [serving, self._exporter.watch.remote(self._ledger.name, self._told)]

    def _port(self, timeout_s: float) -> int:
        """Where the exporter listens that was asked; one that has ended is made anew."""
        try:
            port, self._told = ray.get(self._serving, timeout=timeout_s)
        except ActorDiedError:
            self._exporter = None
            self._ask()
            port, self._told = ray.get(self._serving, timeout=timeout_s)
        return int(port)

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_EVERY_S):
            try:
                self._ask()
                self._announce(self._port(_ANSWER_TIMEOUT_S))
            except (RayError, OSError, ValueError) as error:
                # It is being started anew; metrics are no reason to end a run.
                if isinstance(error, OSError) and not isinstance(error, TimeoutError):
                    self._announced = None  # somebody has taken its port; another will do, if any would

    def _announce(self, port: int) -> None:
        """Say where this run can be scraped, to ``gpo monitor`` on the same machine."""
        host = self._config.host
        if self._config.port is None or host not in _LOOPBACK or self._announced == port:
            return
        address = f"127.0.0.1:{port}" if ":" not in host else f"[::1]:{port}"
        with suppress(OSError):  # where nothing can be kept, nobody looks either
            announce(self._run, address)
            self._announced = port


@contextmanager
def exported(config: MetricsConfig, run: str) -> Iterator[Metrics]:
    """The metrics of what runs in this context, on a Ray cluster that is connected; see ``Metrics``."""
    metrics = Metrics(config, run)
    metrics.start()
    try:
        yield metrics
    finally:
        metrics.close()


def _reason(error: Exception) -> str:
    cause = getattr(error, "cause", None) or error
    return (str(cause).strip() or type(cause).__name__).splitlines()[-1]
