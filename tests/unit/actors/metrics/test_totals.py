from __future__ import annotations

from collections.abc import Callable

import pytest

from actors.metrics import recorder as recorder_module
from actors.metrics.catalogue import ACTOR_DEATHS, ACTORS, IN_FLIGHT, STEPS
from actors.metrics.counts import Counts, Numbers
from actors.metrics.recorder import Reporter
from actors.metrics.totals import ProcessReport, ReportStore, RunTotals
from gpo.runtime.process import ProcessIdentity
from tests.waiting import wait_until

_STEPS = (STEPS.name, ("r", "t", "0"))
_CALLS = (IN_FLIGHT.name, ("r", "t", "task", "m"))
_ALIVE = (ACTORS.name, ("r", "evaluator"))
_DEATHS = (ACTOR_DEATHS.name, ("r", "evaluator"))


def _identity(name: str) -> ProcessIdentity:
    return ProcessIdentity(name, 1, None, None)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Process:
    """A process that reports to the limiter of the moment."""

    def __init__(self, name: str) -> None:
        self.identity, self.number, self.changed = _identity(name), 0, 0

    def report(self, store: ReportStore, steps: float | None, *, is_last: bool = False) -> bool:
        self.number += 1
        if steps is not None:
            self.changed = self.number
        counts: Numbers | None = None if steps is None else {_STEPS: (steps,), _CALLS: (1.0,)}
        report = ProcessReport("s", self.identity, "evaluator", self.number, self.changed, counts, is_last)
        return store.take(report)


class Driver:
    """A driver that looks once a second."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock, self.gone = Clock(), set[str]()
        monkeypatch.setattr(
            ProcessIdentity, "has_certainly_ended", property(lambda identity: identity.host in self.gone)
        )
        self.totals = RunTotals("r", self.clock)

    def look(self, store: ReportStore, meanwhile: Callable[[], object] = lambda: None) -> dict[str, float]:
        self.clock.now += 1

        def fetch(known: object) -> list[ProcessReport]:
            meanwhile()
            return store.newest("s", known)  # type: ignore[arg-type]

        self.totals.look(fetch)
        numbers = self.totals.numbers()
        names = {"steps": _STEPS, "under way": _CALLS, "alive": _ALIVE, "deaths": _DEATHS}
        return {name: numbers[series][0] for name, series in names.items() if series in numbers}


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    return Driver(monkeypatch)


def test_counts_are_the_sum_of_the_newest_report_of_each_process(driver: Driver) -> None:
    store, processes = ReportStore(), [Process("a"), Process("b")]
    for process, steps in zip(processes, (3, 4), strict=True):
        assert process.report(store, steps)
    assert driver.look(store) == {"steps": 7, "under way": 2, "alive": 2, "deaths": 0}
    assert processes[0].report(store, 5)
    assert processes[1].report(store, None)  # nothing new
    assert driver.look(store) == {"steps": 9, "under way": 2, "alive": 2, "deaths": 0}


def test_a_report_that_arrives_late_replaces_no_newer_one(driver: Driver) -> None:
    store = ReportStore()
    store.take(ProcessReport("s", _identity("a"), "evaluator", 2, 2, {_STEPS: (5.0,)}))
    store.take(ProcessReport("s", _identity("a"), "evaluator", 1, 1, {_STEPS: (3.0,)}))
    assert driver.look(store)["steps"] == 5


def test_counts_travel_to_the_driver_only_when_they_changed() -> None:
    store, process = ReportStore(), Process("a")
    process.report(store, 3)
    process.report(store, None)
    assert [report.counts for report in store.newest("s", {_identity("a"): 1})] == [None]
    assert [report.number for report in store.newest("s", {_identity("a"): 1})] == [2]
    process.report(store, 4)
    assert [report.counts for report in store.newest("s", {_identity("a"): 1})] == [{_STEPS: (4,), _CALLS: (1.0,)}]
    assert store.newest("another", {}) == []


def test_no_counter_falls_when_a_process_dies_or_the_limiter_restarts(driver: Driver) -> None:
    store, victim, other = ReportStore(), Process("victim"), Process("other")
    victim.report(store, 3)
    other.report(store, 4)
    assert driver.look(store)["steps"] == 7
    driver.gone.add("victim")
    other.report(store, None)
    for _ in range(2):  # one death, however often it is noticed
        assert driver.look(store) == {"steps": 7, "under way": 1, "alive": 1, "deaths": 1}
    store = ReportStore()
    assert driver.look(store) == {"steps": 7, "under way": 1, "alive": 1, "deaths": 1}
    assert not other.report(store, None)  # the new limiter asks for the counts
    assert driver.look(store)["steps"] == 7
    assert other.report(store, 6)
    assert driver.look(store) == {"steps": 9, "under way": 1, "alive": 1, "deaths": 1}


def test_a_process_that_ends_as_intended_did_not_die(driver: Driver) -> None:
    store, process = ReportStore(), Process("a")
    process.report(store, 3)
    driver.look(store)

    def end() -> None:
        process.report(store, 4, is_last=True)
        driver.gone.add("a")

    # Even if it ends between the look at the processes and the reports.
    assert driver.look(store, end) == {"steps": 4, "under way": 0, "alive": 0, "deaths": 0}
    assert driver.look(store) == {"steps": 4, "under way": 0, "alive": 0, "deaths": 0}


def test_a_silent_process_is_dead_until_it_reports_again(driver: Driver) -> None:
    store, process = ReportStore(), Process("on another node")
    process.report(store, 3)
    for _ in range(11):
        assert driver.look(store)["alive"] == 1
    assert driver.look(store) == {"steps": 3, "under way": 0, "alive": 0, "deaths": 1}
    process.report(store, 4)
    assert driver.look(store) == {"steps": 4, "under way": 1, "alive": 1, "deaths": 1}


def test_no_process_counts_as_silent_while_the_limiter_is_away(driver: Driver) -> None:
    store, process = ReportStore(), Process("a")
    process.report(store, 3)
    driver.look(store)
    driver.clock.now += 100
    assert driver.look(ReportStore()) == {"steps": 3, "under way": 1, "alive": 1, "deaths": 0}


def test_the_limiter_forgets_a_run_whose_processes_stopped_reporting() -> None:
    clock = Clock()
    store = ReportStore(clock)
    Process("a").report(store, 3)
    clock.now += 61
    assert len(store.newest("s", {})) == 1
    store.take(ProcessReport("another", _identity("b"), "evaluator", 1, 1, {}))
    assert store.newest("s", {}) == []


class Limiter:
    """Fails a given number of times, then keeps reports."""

    def __init__(self, failures: int = 0) -> None:
        self.failures, self.store, self.reports = failures, ReportStore(), list[ProcessReport]()

    def report_counts(self, report: ProcessReport) -> bool:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("away")
        self.reports.append(report)
        return self.store.take(report)


def _reporter(limiter: Limiter, counts: Counts, monkeypatch: pytest.MonkeyPatch) -> Reporter:
    monkeypatch.setattr(recorder_module, "REPORTED_EVERY_S", 0.01)
    return Reporter(counts, limiter, "s", "evaluator")  # type: ignore[arg-type]


def test_a_process_sends_its_counts_when_they_changed_and_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    limiter, counts = Limiter(), Counts()
    reporter = _reporter(limiter, counts, monkeypatch)
    wait_until(lambda: len(limiter.reports) >= 3)
    counts.add(STEPS, "r", "t", "0")
    reporter.close()
    sent = [report.counts for report in limiter.reports if report.counts is not None]
    assert sent == [{}, {_STEPS: (1.0,)}]
    assert [report.is_last for report in limiter.reports[-2:]] == [False, True]
    (report,) = limiter.store.newest("s", {})
    assert (report.counts, report.is_last) == ({_STEPS: (1.0,)}, True)


def test_a_report_that_fails_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    limiter, counts = Limiter(failures=3), Counts()
    counts.add(STEPS, "r", "t", "0")
    reporter = _reporter(limiter, counts, monkeypatch)
    wait_until(lambda: len(limiter.reports) >= 2)
    assert [report.counts for report in limiter.reports[:2]] == [{_STEPS: (1.0,)}, None]
    limiter.store = ReportStore()  # it was restarted
    begin = len(limiter.reports)
    wait_until(lambda: len(limiter.reports) >= begin + 3)
    reporter.close()
    assert {_STEPS: (1.0,)} in [report.counts for report in limiter.reports[begin:]]
    (report,) = limiter.store.newest("s", {})
    assert report.counts == {_STEPS: (1.0,)}
