"""Counts in a process that calls models, and reports the counts to the limiter."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Thread

from ray.exceptions import RayError

from actors.limiter import LimiterActor
from actors.metrics.catalogue import (
    CACHE,
    CHECKPOINTS,
    COST,
    DURATION,
    FAILURES,
    FLAWS,
    IN_FLIGHT,
    REQUESTS,
    RETRIES,
    TOKENS,
    WAIT,
    WAITING,
)
from actors.metrics.counts import Counts, Numbers, observe
from actors.metrics.totals import ProcessReport
from gpo.limits.messages import Pool
from gpo.models import events
from gpo.models.events import Outcome
from gpo.models.protocol import Usage
from gpo.runtime.process import ProcessIdentity

log = logging.getLogger(__name__)

REPORTED_EVERY_S = 0.5
_LAST_ATTEMPTS = 3


class Recorder:
    """An ``Observer`` that counts. All events come from one event loop.

    Args:
        counts: where it counts.
        run: the value of the label.
    """

    def __init__(self, counts: Counts, run: str) -> None:
        self._counts, self._run = counts, run
        self._calls: dict[tuple[str, str, str], _Calls] = {}
        self._lookups: dict[tuple[str, str], tuple[list[float], list[float]]] = {}

    def request_queued(self, pool: Pool, caller: str) -> None:
        self._of(pool, caller).waiting[0] += 1.0

    def request_abandoned(self, pool: Pool, caller: str) -> None:
        self._of(pool, caller).waiting[0] -= 1.0

    def request_started(self, pool: Pool, caller: str, waited_s: float, *, is_retry: bool) -> None:
        self._of(pool, caller).started(waited_s, is_retry=is_retry)

    def request_ended(self, pool: Pool, caller: str, outcome: Outcome, duration_s: float, usage: Usage | None) -> None:
        self._of(pool, caller).ended(outcome, duration_s, usage)

    def call_failed(self, pool: Pool, caller: str, *, is_final: bool) -> None:
        calls = self._of(pool, caller)
        (calls.refused if is_final else calls.unavailable)[0] += 1.0

    def cache_lookup(self, role: str, caller: str, *, is_hit: bool) -> None:
        rows = self._lookups.get((role, caller))
        if rows is None:
            labels = (self._run, _task(caller), role)
            rows = self._counts.row(CACHE, *labels, "miss"), self._counts.row(CACHE, *labels, "hit")
            self._lookups[role, caller] = rows
        rows[is_hit][0] += 1.0

    def checkpoint_saved(self, caller: str) -> None:
        self._counts.add(CHECKPOINTS, self._run, _task(caller))

    def _of(self, pool: Pool, caller: str) -> _Calls:
        # Not keyed by the pool: hashing it takes longer than all the rest.
        key = (pool.role, pool.model, caller)
        calls = self._calls.get(key)
        if calls is None:
            calls = self._calls[key] = _Calls(self._counts, (self._run, _task(caller), pool.role, pool.model))
        return calls


class _Calls:
    """The rows of calls to one model in one role, for one task; looked up once, since each call counts in most."""

    def __init__(self, counts: Counts, labels: tuple[str, str, str, str]) -> None:
        run, _, role, model = labels
        row = counts.row
        self.waiting = row(WAITING, *labels)
        self.unavailable = row(FAILURES, *labels, "unavailable")
        self.refused = row(FAILURES, *labels, "refused")
        self._in_flight = row(IN_FLIGHT, *labels)
        self._ended = {outcome: row(REQUESTS, *labels, str(outcome)) for outcome in Outcome}
        self._retries = row(RETRIES, *labels)
        self._prompt = row(TOKENS, *labels, "prompt")
        self._completion = row(TOKENS, *labels, "completion")
        self._empty = row(FLAWS, *labels, "empty")
        self._truncated = row(FLAWS, *labels, "truncated")
        self._unmetered = row(FLAWS, *labels, "unmetered")
        self._cost = row(COST, *labels)
        self._duration = row(DURATION, run, role, model)
        self._wait = row(WAIT, run, role, model)

    def started(self, waited_s: float, *, is_retry: bool) -> None:
        self.waiting[0] -= 1.0
        self._in_flight[0] += 1.0
        self._retries[0] += is_retry
        observe(self._wait, WAIT, waited_s)

    def ended(self, outcome: Outcome, duration_s: float, usage: Usage | None) -> None:
        self._in_flight[0] -= 1.0
        self._ended[outcome][0] += 1.0
        if usage is None:
            return
        self._prompt[0] += usage.prompt_tokens
        self._completion[0] += usage.completion_tokens
        self._cost[0] += usage.cost_usd
        self._empty[0] += usage.empty
        self._truncated[0] += usage.truncated
        self._unmetered[0] += usage.unmetered
        if outcome is Outcome.ANSWERED:
            observe(self._duration, DURATION, duration_s)


def _task(caller: str) -> str:
    """A caller is named ``task/seed``, or in a sweep ``population/task/seed``. Only the task is a label."""
    return "/".join(caller.split("/")[-2:-1])


class Reporter:
    """Reports the counts of this process to the limiter, from a thread, until it is closed.

    Args:
        session, actor: see ``ProcessReport``.
    """

    def __init__(self, counts: Counts, limiter: LimiterActor, session: str, actor: str) -> None:
        self._counts, self._limiter, self._session, self._actor = counts, limiter, session, actor
        self._process = ProcessIdentity.current()
        self._number, self._changed, self._is_known = 0, 0, False
        self._reported: Numbers = {}
        self._over = Event()
        self._thread = Thread(target=self._work, name="counts", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Report for the last time: this process ends as intended. Returns once the limiter has the report."""
        self._over.set()
        self._thread.join()
        for _ in range(_LAST_ATTEMPTS):
            if self._report(is_last=True):
                return

    def _work(self) -> None:
        try:
            self._report()
            while not self._over.wait(REPORTED_EVERY_S):
                self._report()
        except Exception:  # a defect of this program, which must not go unnoticed in a thread
            log.exception("counts are no longer reported")

    def _report(self, *, is_last: bool = False) -> bool:
        """Whether the limiter has all counts now; else they are reported again."""
        self._number += 1
        counts = self._counts.snapshot()
        if counts != self._reported or not self._changed:
            self._reported, self._changed, self._is_known = counts, self._number, False
        report = ProcessReport(
            self._session, self._process, self._actor, self._number, self._changed,
            None if self._is_known else counts, is_last,
        )  # fmt: skip
        self._is_known = False
        with suppress(ConnectionError, RayError):
            self._is_known = self._limiter.report_counts(report)
        return self._is_known


def record(session: str, run: str, actor: str) -> Callable[[], None]:
    """Count from now on what happens in this process, which Ray runs.

    Args:
        run: the value of the label.
        session, actor: see ``ProcessReport``.

    Returns:
        To be called before the process ends as intended, once nothing is counted any more: it reports the last counts.
    """
    counts = Counts()
    events.install(Recorder(counts, run))
    return Reporter(counts, LimiterActor(), session, actor).close
