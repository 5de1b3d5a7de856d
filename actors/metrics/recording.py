"""What counts in a process that calls models: an observer that writes to the process's book."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ray

from actors.metrics.book import BEGUN, Book, Count
from actors.metrics.catalogue import (
    CACHE,
    CHECKPOINTS,
    COST,
    DURATION,
    FAILURES,
    FLAWS,
    REQUESTS,
    RETRIES,
    TOKENS,
    WAIT,
    WAITING,
)
from gpo import events as observing
from gpo.events import Outcome
from gpo.limits.messages import Pool
from gpo.models.protocol import Usage


class Recorder:
    """An ``Observer`` that counts in a book.

    Args:
        run: what the process belongs to.
    """

    def __init__(self, book: Book, run: str) -> None:
        self._book, self._run = book, run
        self._calls: dict[tuple[str, str, str], _Calls] = {}
        self._lookups: dict[tuple[str, str], tuple[Count, Count]] = {}
        self._saves: dict[str, Count] = {}

    def request_queued(self, pool: Pool, caller: str) -> None:
        self._of(pool, caller).waiting.add()

    def request_abandoned(self, pool: Pool, caller: str) -> None:
        self._of(pool, caller).waiting.add(-1.0)

    def request_started(self, pool: Pool, caller: str, waited_s: float, *, is_retry: bool) -> None:
        self._of(pool, caller).started(waited_s, is_retry=is_retry)

    def request_ended(self, pool: Pool, caller: str, outcome: Outcome, duration_s: float, usage: Usage | None) -> None:
        self._of(pool, caller).ended(outcome, duration_s, usage)

    def call_failed(self, pool: Pool, caller: str, *, is_final: bool) -> None:
        calls = self._of(pool, caller)
        (calls.refused if is_final else calls.unavailable).add()

    def cache_lookup(self, role: str, caller: str, *, is_hit: bool) -> None:
        counts = self._lookups.get((role, caller))
        if counts is None:
            labels = (self._run, _task(caller), role)
            counts = self._book.count(CACHE, *labels, "miss"), self._book.count(CACHE, *labels, "hit")
            self._lookups[role, caller] = counts
        counts[is_hit].add()

    def checkpoint_saved(self, caller: str) -> None:
        count = self._saves.get(caller)
        if count is None:
            count = self._saves[caller] = self._book.count(CHECKPOINTS, self._run, _task(caller))
        count.add()

    def _of(self, pool: Pool, caller: str) -> _Calls:
        # By values, not by the pool: its hash takes longer than all the rest.
        key = (pool.role, pool.model, caller)
        calls = self._calls.get(key)
        if calls is None:
            calls = self._calls[key] = _Calls(self._book, (self._run, _task(caller), pool.role, pool.model))
        return calls


class _Calls:
    """The counts of calls to one model in one role, for one task.

    What is counted with every call is stored at once, under one lock, which is most of what one alone takes.
    """

    def __init__(self, book: Book, labels: tuple[str, str, str, str]) -> None:
        run, _, role, model = labels
        self.waiting = book.count(WAITING, *labels)
        self.unavailable = book.count(FAILURES, *labels, "unavailable")
        self.refused = book.count(FAILURES, *labels, "refused")
        self._ended = {outcome: book.count(REQUESTS, *labels, str(outcome)).place for outcome in Outcome}
        self._begun = book.count(REQUESTS, *labels, part=BEGUN).place
        self._retries = book.count(RETRIES, *labels).place
        self._sent = book.count(TOKENS, *labels, "prompt").place
        self._generated = book.count(TOKENS, *labels, "completion").place
        self._empty = book.count(FLAWS, *labels, "empty").place
        self._truncated = book.count(FLAWS, *labels, "truncated").place
        self._unmetered = book.count(FLAWS, *labels, "unmetered").place
        self._cost = book.count(COST, *labels).place
        self._duration = book.distribution(DURATION, run, role, model)
        self._wait = book.distribution(WAIT, run, role, model)
        self._lock, self._values = book.lock, book.values

    def started(self, waited_s: float, *, is_retry: bool) -> None:
        """One is let through."""
        values, wait = self._values, self._wait
        with self._lock:
            values[self._begun] += 1.0
            values[self._retries] += is_retry
            values[self.waiting.place] -= 1.0
            values[wait.bucket(waited_s).place] += 1.0
            values[wait.total.place] += waited_s

    def ended(self, outcome: Outcome, duration_s: float, usage: Usage | None) -> None:
        """One is over."""
        values, duration = self._values, self._duration
        with self._lock:
            values[self._ended[outcome]] += 1.0
            if usage is None:
                return
            values[self._sent] += usage.prompt_tokens
            values[self._generated] += usage.completion_tokens
            values[self._cost] += usage.cost_usd
            values[self._empty] += usage.empty
            values[self._truncated] += usage.truncated
            values[self._unmetered] += usage.unmetered
            values[duration.bucket(duration_s).place] += 1.0
            values[duration.total.place] += duration_s


def _task(caller: str) -> str:
    """Trajectories are told apart as ``task/seed``."""
    return caller.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class Ledger:
    """Where the processes of a run keep their books. A value that travels to them.

    Args:
        run: what they belong to.
        name: of a folder in each node's own place for temporary files.
    """

    run: str
    name: str

    def book(self, actor: str) -> Book:
        """A book for this process, which runs in Ray."""
        return Book(node_folder(self.name), self.run, actor)

    def record(self, actor: str) -> Callable[[], None]:
        """Count from now on what happens in this process, which runs in Ray.

        Returns:
            To be called before the process is ended as it is meant to, so that it is not taken for one that died.
        """
        book = self.book(actor)
        observing.install(Recorder(book, self.run))
        return book.close


def node_folder(name: str, node: str | None = None) -> Path:
    """The folder of one node: of this process's where none is named.

    Below Ray's own place for temporary files, which is one for all processes of a node, whatever their ``TMPDIR``;
    nodes may share a machine, and with it that place.
    """
    context = ray.get_runtime_context()
    return Path(context.get_temp_dir()) / name / (node or context.get_node_id())
