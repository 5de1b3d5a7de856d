"""The metrics of a run, from its driver: who counts, who tells, and what happens at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from threading import Event, Thread
from uuid import uuid4

from ray.exceptions import RayError

from actors.metrics.catalogue import Metric
from actors.metrics.recording import Ledger
from cluster.config import RunConfig
from cluster.config.observability import MetricsConfig
from cluster.display.progress import View
from cluster.metrics.exporting import ANSWER_TIMEOUT_S, Exporting, exporting
from cluster.metrics.targets import announce, withdraw
from cluster.metrics.view import MetricsView
from cluster.results.run_record import RunRecord
from cluster.session.deployments import unfailing
from gpo.errors import ConfigError

_LOOK_EVERY_S = 2.0
_START_TIMEOUT_S = 60.0
_LOOPBACK = ("127.0.0.1", "localhost", "::1", "0.0.0.0", "::")  # noqa: S104 - compared with, not listened at


class Metrics:
    """What a run's driver does about metrics; nothing where they are off.

    Args:
        run: what all that is counted belongs to.
        is_alone: whether the Ray cluster is this run's own.
    """

    def __init__(self, config: MetricsConfig, run: str, *, is_alone: bool) -> None:
        self._config, self._run = config, run
        self._ledger = Ledger(run, f"gpo-metrics-{uuid4().hex}") if config.is_on else None
        self._view: MetricsView | None = None
        try:
            self._book = self._ledger.book("driver") if self._ledger else None
        except OSError as error:
            raise ConfigError("metrics", f"counts cannot be kept ({_reason(error)})", "make room") from None
        self._exporter: Exporting | None = None
        if self._ledger is not None:
            self._exporter = exporting(config, self._ledger, is_alone=is_alone)
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
        """Have scrapes answered: from now on, or soon, where that takes another process.

        Raises:
            ConfigError: the address cannot be listened at.
        """
        if self._exporter is not None:
            self._exporter.ask()
            if not self._exporter.is_elsewhere:
                self._listen(self._exporter)

    def ready(self) -> None:
        """Wait until scrapes are answered.

        Raises:
            ConfigError: the address cannot be listened at.
        """
        if self._exporter is not None and self._exporter.is_elsewhere:
            self._listen(self._exporter)
            self._watching.start()

    def _listen(self, exporter: Exporting) -> None:
        where = f"{self._config.host}:{self._config.port}"
        try:
            self._announce(exporter.port(_START_TIMEOUT_S))
        except TimeoutError:
            raise ConfigError("metrics", f"no exporter within {_START_TIMEOUT_S:g} s", "leave it out") from None
        except OSError as error:  # as whatever came out of the actor
            raise ConfigError(
                "metrics.port", f"{where} cannot be listened at ({_reason(error)})", "name another, or 0 for a free one"
            ) from None
        except RayError as error:
            raise ConfigError("metrics", f"the exporter did not start ({_reason(error)})", "leave it out") from None

    def finish(self) -> None:
        """The run is over: its last values are told, and waited for, unless something has gone wrong."""
        if self._exporter is None:
            return
        is_well = sys.exception() is None
        self._end_view()
        self._stop_watching()
        with unfailing("exporting the last metrics"):
            self._exporter.ask()
            self._exporter.port(ANSWER_TIMEOUT_S)
            scrapes = self._exporter.finish()
            if self._config.pushgateway is not None:
                self._exporter.push(self._run, self._config.pushgateway)
            if self._config.port is not None and is_well:
                self._await_scrape(self._exporter, scrapes)

    def close(self) -> None:
        """Leave nothing behind."""
        self._stop_watching()
        if self._exporter is None:
            return
        withdraw(self._run)
        with unfailing("removing the metrics"):
            self._exporter.close()

    def _end_view(self) -> None:
        if self._view is not None:
            self._view.end()
            self._view = None

    def _stop_watching(self) -> None:
        self._over.set()
        if self._watching.ident is not None:
            self._watching.join()

    def _await_scrape(self, exporter: Exporting, scrapes: int) -> None:
        deadline = time.monotonic() + self._config.linger_s
        while time.monotonic() < deadline:
            if exporter.scrapes() > scrapes:
                return
            time.sleep(0.1)

    def _watch(self) -> None:
        assert self._exporter is not None  # noqa: S101
        while not self._over.wait(_LOOK_EVERY_S):
            # It is being started anew; metrics are no reason to end a run.
            with suppress(RayError, OSError, ValueError):
                self._exporter.ask()
                self._announce(self._exporter.port(ANSWER_TIMEOUT_S))

    def _announce(self, port: int | None) -> None:
        """Say where this run can be scraped, to ``gpo monitor`` on the same machine."""
        host = self._config.host
        if port is None or host not in _LOOPBACK or self._announced == port:
            return
        address = f"127.0.0.1:{port}" if ":" not in host else f"[::1]:{port}"
        with suppress(OSError):  # where nothing can be kept, nobody looks either
            announce(self._run, address)
            self._announced = port


@contextmanager
def exported(config: MetricsConfig, run: str, *, is_alone: bool) -> Iterator[Metrics]:
    """The metrics of what runs in this context, on a Ray cluster that is connected; see ``Metrics``."""
    metrics = Metrics(config, run, is_alone=is_alone)
    try:
        metrics.start()
        yield metrics
    finally:
        metrics.close()


def _reason(error: Exception) -> str:
    cause = getattr(error, "cause", None) or error
    return (str(cause).strip() or type(cause).__name__).splitlines()[-1]
