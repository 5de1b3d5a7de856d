"""Totals over the processes of a run and whether each process is alive, from the counts that the processes report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from actors.metrics.catalogue import ACTOR_DEATHS, ACTORS, CATALOGUE, Kind
from actors.metrics.counts import Counts, Numbers, Series, total
from gpo.runtime.process import ProcessIdentity

_FORGOTTEN_S = 60.0
"""How long the limiter keeps the reports of a run after the last report of any of its processes."""
_SILENT_S = 10.0
"""A process without a new report for this long counts as dead. Live processes report twice a second."""
_LONGEST_LOOK_S = 2.0


@dataclass(frozen=True, slots=True)
class ProcessReport:
    """What one process of a run has counted since its start.

    Attributes:
        session: ID of the driver's work on the run; unique.
        actor: kind of the process, such as ``evaluator``.
        number: rises with every report of the process.
        changed: number of the report in which the counts changed last.
        counts: cumulative; ``None`` in a report that repeats what the receiver knows.
        is_last: whether the process ends as intended after this report.
    """

    session: str
    process: ProcessIdentity
    actor: str
    number: int
    changed: int
    counts: Numbers | None
    is_last: bool = False


class ReportStore:
    """The newest report of each process, by session; lives in the limiter.

    Args:
        clock: seconds that only rise.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._newest: dict[str, dict[ProcessIdentity, ProcessReport]] = {}
        self._last_report: dict[str, float] = {}

    def take(self, report: ProcessReport) -> bool:
        """Keep the report unless a newer one is known.

        Returns:
            Whether the counts of the process are known. If not, its next report must hold them.
        """
        now = self._last_report[report.session] = self._clock()
        for session in [name for name, at in self._last_report.items() if now - at > _FORGOTTEN_S]:
            del self._last_report[session], self._newest[session]
        reports = self._newest.setdefault(report.session, {})
        before = reports.get(report.process)
        if before is None or report.number > before.number:
            counts = report.counts if report.counts is not None or before is None else before.counts
            reports[report.process] = replace(report, counts=counts)
        return reports[report.process].counts is not None

    def newest(self, session: str, known: Mapping[ProcessIdentity, int]) -> list[ProcessReport]:
        """The newest report of each process of a session.

        Args:
            known: process → ``changed`` of the counts that the caller has; these are left out.
        """
        reports = self._newest.get(session, {}).values()
        return [replace(one, counts=None) if known.get(one.process) == one.changed else one for one in reports]


@dataclass(slots=True)
class _Process:
    """What the driver knows of a process.

    Attributes:
        counted: ``changed`` of its counts; -1 before the first.
        silent_s: seconds since its last new report in which the limiter was asked.
        has_died: whether it was ever dead; a process that was taken for dead may report again.
    """

    actor: str
    number: int = -1
    counted: int = -1
    counts: Numbers | None = None
    is_over: bool = False
    is_dead: bool = False
    silent_s: float = 0.0
    has_died: bool = False

    @property
    def is_alive(self) -> bool:
        return not (self.is_over or self.is_dead)


class RunTotals:
    """What all processes of a run have counted; lives in the driver and outlives the processes and the limiter.

    Args:
        run: the value of the label.
        clock: seconds that only rise.
    """

    def __init__(self, run: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._run, self._clock, self._looked = run, clock, clock()
        self._processes: dict[ProcessIdentity, _Process] = {}

    def look(self, fetch: Callable[[Mapping[ProcessIdentity, int]], Iterable[ProcessReport]]) -> None:
        """Fetch the newest reports, and notice the processes that died.

        A process of this machine is dead once it is gone, one of another machine once it is silent for long.

        Args:
            fetch: ``ReportStore.newest`` of the session. What it raises is raised, and nothing changes.
        """
        # Asked before: a process that is gone by now has delivered its last report, if it sent one.
        gone = {identity for identity in self._processes if identity.has_certainly_ended}
        reports = fetch({identity: process.counted for identity, process in self._processes.items()})
        now = self._clock()
        # While the limiter or this process is away, no process is silent.
        since_s, self._looked = min(now - self._looked, _LONGEST_LOOK_S), now
        for process in self._processes.values():
            process.silent_s += since_s
        for report in reports:
            self._take(report)
        for identity, process in self._processes.items():
            # On this machine, the operating system knows better than a silence, which an overloaded machine causes too.
            is_silent = process.silent_s > _SILENT_S and not identity.is_local
            process.is_dead = not process.is_over and (identity in gone or is_silent)
            process.has_died |= process.is_dead

    def _take(self, report: ProcessReport) -> None:
        known = self._processes.setdefault(report.process, _Process(report.actor))
        if report.number > known.number:
            known.number, known.is_over, known.silent_s = report.number, report.is_last, 0.0
        if report.counts is not None and report.changed > known.counted:
            known.counts, known.counted = report.counts, report.changed

    def numbers(self) -> dict[Series, list[float]]:
        """The sum over all processes, dead ones included; gauges are those of the living, and 0 for the dead."""
        return total(self._parts())

    def _parts(self) -> Iterator[Numbers]:
        actors = Counts()
        for process in self._processes.values():
            actors.add(ACTORS, self._run, process.actor, amount=process.is_alive)
            actors.add(ACTOR_DEATHS, self._run, process.actor, amount=process.has_died)
            counts = process.counts or {}
            yield counts if process.is_alive else {series: _of_the_dead(series, row) for series, row in counts.items()}
        yield actors.snapshot()

    def reported(self) -> dict[ProcessIdentity, int]:
        """Living process → the number of its last report."""
        return {identity: process.number for identity, process in self._processes.items() if process.is_alive}


def _of_the_dead(series: Series, row: Iterable[float]) -> tuple[float, ...]:
    return (0.0,) if CATALOGUE[series[0]].kind is Kind.GAUGE else tuple(row)
