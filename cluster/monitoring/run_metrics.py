"""The metrics of a run in its driver: fetches what its processes count, adds its own counts, and updates the exporter.

On a shared cluster the exporter is an actor on the head node, where a scraper finds it for drivers on any node. A
run that starts Ray itself exports from its driver, which saves a process: Ray wakes each idle worker a hundred times a
second (``python -m benchmarks.metrics`` measures the cost). An address beyond loopback always gets the actor, so that
untrusted clients never reach the driver.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from threading import Event, Thread
from typing import Any, Protocol
from uuid import uuid4

import ray
from ray.exceptions import ActorDiedError, RayError

from actors.limiter import LimiterActor
from actors.metrics.catalogue import ACTOR_DEATHS, ACTORS, Metric
from actors.metrics.counts import Counts, Numbers, total
from actors.metrics.exporter import Exporter, exporter_actor, push
from actors.metrics.recorder import record
from actors.metrics.totals import RunTotals
from cluster.config import RunConfig
from cluster.config.observability import MetricsConfig
from cluster.display.logs import log_failures
from cluster.display.progress import View
from cluster.monitoring.metrics_view import MetricsView
from cluster.monitoring.targets import announce, withdraw
from cluster.results.run_record import RunRecord
from gpo.errors import ConfigError
from gpo.text import last_line
from serve.http_limits import is_loopback

log = logging.getLogger(__name__)

_EVERY_S = 1.0
_START_TIMEOUT_S = 60.0
_ANSWER_TIMEOUT_S = 30.0
_SETTLES_WITHIN_S = 5.0
"""How long the driver waits at the end for the last counts of processes that still live."""
_LOOPBACK = ("127.0.0.1", "localhost", "::1", "0.0.0.0", "::")  # noqa: S104 - compared with, not listened at


class Metrics:
    """The metrics of a run, in its driver. Does nothing if metrics are off.

    Args:
        run: the value of the label ``run``.
        is_alone: whether the Ray cluster belongs to this run alone.
    """

    def __init__(self, config: MetricsConfig, run: str, *, is_alone: bool) -> None:
        self._config, self._run, self._session = config, run, uuid4().hex
        self._limiter, self._totals = LimiterActor(), RunTotals(run)
        self._counts = Counts()
        self._counts.set(ACTORS, 1.0, run, "driver")
        self._counts.row(ACTOR_DEATHS, run, "driver")
        self._view: MetricsView | None = None
        self._exporter: _ExporterLink | None = None
        if config.port is not None:
            link = _OwnExporter if is_alone and is_loopback(config.host) else _SharedExporter
            self._exporter = link(config.host, config.port, self._session)
        self._over = Event()
        self._announced: int | None = None
        self._watching = Thread(target=self._watch, name="metrics", daemon=True)

    def recorder_for(self, actor: str) -> Callable[[], Callable[[], object]] | None:
        """To be called at the start of a process that calls models; see ``actors.metrics.recorder.record``. Pickles."""
        return partial(record, self._session, self._run, actor) if self._config.is_on else None

    def counted_view(self, view: View, config: RunConfig, record: RunRecord) -> View:
        """A view that counts what it is shown, and shows it in the view that people see."""
        self._end_view()
        if not self._config.is_on:
            return view
        self._view = MetricsView(view, self._counts, record, config.budget)
        return self._view

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Set a gauge, such as the trials of a sweep by state.

        Args:
            labels: values without the first one, ``run``, in the metric's order.
        """
        self._counts.set(metric, value, self._run, *labels)

    def start(self) -> None:
        """Start the exporter. One in this process answers scrapes from now on.

        Raises:
            ConfigError: the address cannot be listened at.
        """
        if isinstance(self._exporter, _SharedExporter):
            self._exporter.begin()
        elif self._exporter is not None:
            self._listen(self._exporter)

    def ready(self) -> None:
        """Wait until scrapes are answered, and keep the numbers up to date from now on.

        Raises:
            ConfigError: the address cannot be listened at.
        """
        if isinstance(self._exporter, _SharedExporter):
            self._listen(self._exporter)
        if self._config.is_on:
            self._watching.start()

    def numbers(self) -> Numbers:
        """The counts of the driver, plus the newest known counts of the run's processes."""
        return total([self._counts.snapshot(), self._totals.numbers()])

    def finish(self) -> None:
        """The run is over: export its last values, and wait until they are scraped unless an error is under way."""
        if not self._config.is_on:
            return
        is_well = sys.exception() is None
        self._end_view()
        self._stop_watching()
        with log_failures("exporting the last metrics"):
            self._settle()
            if self._config.pushgateway is not None:
                push(self.numbers(), self._run, self._config.pushgateway)
            if self._exporter is not None:
                self._await_scrape(self._exporter, self._config.linger_s if is_well else 0.0)

    def close(self) -> None:
        """Stop exporting the run."""
        self._stop_watching()
        withdraw(self._run)
        if self._exporter is not None:
            with log_failures("removing the metrics"):
                self._exporter.close()

    def _listen(self, exporter: _ExporterLink) -> None:
        where = f"{self._config.host}:{self._config.port}"
        try:
            self._announce(exporter.update(self.numbers(), _START_TIMEOUT_S)[0])
        except TimeoutError:
            raise ConfigError("metrics", f"no exporter within {_START_TIMEOUT_S:g} s", "leave it out") from None
        except OSError as error:  # from the actor, it is an error of Ray as well
            raise ConfigError(
                "metrics.port", f"{where} cannot be listened at ({_reason(error)})", "name another, or 0 for a free one"
            ) from None
        except RayError as error:
            raise ConfigError("metrics", f"the exporter did not start ({_reason(error)})", "leave it out") from None

    def _end_view(self) -> None:
        if self._view is not None:
            self._view.end()
            self._view = None

    def _stop_watching(self) -> None:
        self._over.set()
        if self._watching.ident is not None:
            self._watching.join()

    def _look(self) -> None:
        # A limiter that cannot be reached is being restarted.
        with suppress(ConnectionError, RayError):
            self._totals.look(partial(self._limiter.newest_counts, self._session))

    def _watch(self) -> None:
        while not self._over.wait(_EVERY_S):
            self._look()
            # An exporter that cannot be reached is being restarted; metrics are no reason to end a run.
            with suppress(RayError, OSError, ValueError):
                if self._exporter is not None:
                    self._announce(self._exporter.update(self.numbers(), _ANSWER_TIMEOUT_S)[0])

    def _settle(self) -> None:
        """Wait until each living process has reported its current counts.

        The next report of a process may already be on its way with older counts, so this waits for two more reports.
        """
        self._look()
        wanted = {process: number + 2 for process, number in self._totals.reported().items()}
        deadline = time.monotonic() + _SETTLES_WITHIN_S
        while any(wanted.get(process, 0) > number for process, number in self._totals.reported().items()):
            if time.monotonic() > deadline:
                log.warning("metrics: the last counts of a process are missing")
                return
            time.sleep(0.1)
            self._look()

    def _await_scrape(self, exporter: _ExporterLink, linger_s: float) -> None:
        _, begun = exporter.update(self.numbers(), _ANSWER_TIMEOUT_S)
        deadline = time.monotonic() + linger_s
        while time.monotonic() < deadline and exporter.answered() <= begun:
            time.sleep(0.1)
            exporter.update(self.numbers(), _ANSWER_TIMEOUT_S)  # again, because a restarted exporter has no numbers

    def _announce(self, port: int) -> None:
        """Publish where this run can be scraped, for ``gpo monitor`` on the same machine."""
        host = self._config.host
        if host not in _LOOPBACK or self._announced == port:
            return
        address = f"127.0.0.1:{port}" if ":" not in host else f"[::1]:{port}"
        with suppress(OSError):  # without a cache folder, gpo monitor finds no run either
            announce(self._run, address)
            self._announced = port


class _ExporterLink(Protocol):
    """How a driver reaches its exporter; see ``actors.metrics.exporter.Exporter``."""

    def update(self, numbers: Numbers, timeout_s: float) -> tuple[int, int]:
        """Hand over the newest numbers.

        Returns:
            The port, and the number of scrapes that had begun before.

        Raises:
            OSError: the address cannot be listened at, or the answer takes too long.
            RayError: there is no exporter now.
        """

    def answered(self) -> int:
        """The number of the last scrape that was answered."""

    def close(self) -> None:
        """Export this run no longer."""


class _OwnExporter:
    """In this process."""

    def __init__(self, host: str, port: int, session: str) -> None:
        self._address, self._session = (host, port), session
        self._exporter = Exporter(kept_s=math.inf)  # it ends with the run

    def update(self, numbers: Numbers, timeout_s: float) -> tuple[int, int]:
        return self._exporter.update(self._session, numbers, *self._address)

    def answered(self) -> int:
        return self._exporter.answered()

    def close(self) -> None:
        self._exporter.close()


class _SharedExporter:
    """An actor, which all runs that name one port share."""

    def __init__(self, host: str, port: int, session: str) -> None:
        self._host, self._port, self._session = host, port, session
        self._listens_at: int | None = None
        self._actor: Any = None

    def begin(self) -> None:
        """Start the actor, without waiting for it, unless it runs already.

        The handle is kept: an actor ends with the handle of the process that made it, even if others found it by name.
        """
        if self._actor is None:
            self._actor = exporter_actor(self._host, self._port, self._session)

    def update(self, numbers: Numbers, timeout_s: float) -> tuple[int, int]:
        try:
            return self._updated(numbers, timeout_s)
        except ActorDiedError:  # it belonged to another run, and ended with it
            self._actor = None
            return self._updated(numbers, timeout_s)

    def _updated(self, numbers: Numbers, timeout_s: float) -> tuple[int, int]:
        self.begin()
        # At the same port as before, so that a scraper's series continue.
        port = self._listens_at or self._port
        try:
            answer = ray.get(self._actor.update.remote(self._session, numbers, self._host, port), timeout=timeout_s)
        except OSError as error:
            if not isinstance(error, TimeoutError):
                self._listens_at = None  # another process has taken the port
            raise
        self._listens_at = int(answer[0])
        return self._listens_at, int(answer[1])

    def answered(self) -> int:
        return int(ray.get(self._actor.answered.remote(), timeout=_ANSWER_TIMEOUT_S))

    def close(self) -> None:
        if self._actor is not None:
            actor, self._actor = self._actor, None
            ray.get(actor.forget.remote(self._session), timeout=_ANSWER_TIMEOUT_S)


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
    return last_line(getattr(error, "cause", None) or error)
