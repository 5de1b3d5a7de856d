"""What counts in a process that calls models: an observer that writes to the process's book."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ray

from actors.metrics.book import BEGUN, Book, Count, Distribution
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
from gpo import observing
from gpo.limits.messages import Pool
from gpo.models import Usage
from gpo.observing import Outcome


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

    def waits(self, pool: Pool, asked_by: str) -> None:
        self._of(pool, asked_by).waiting.add()

    def gives_up(self, pool: Pool, asked_by: str) -> None:
        self._of(pool, asked_by).waiting.add(-1.0)

    def begins(self, pool: Pool, asked_by: str, waited_s: float, *, is_retry: bool) -> None:
        calls = self._of(pool, asked_by)
        if is_retry:
            calls.retries.add()
        calls.begun.add()
        calls.waiting.add(-1.0)
        calls.wait.observe(waited_s)

    def ends(self, pool: Pool, asked_by: str, outcome: Outcome, took_s: float, usage: Usage | None) -> None:
        calls = self._of(pool, asked_by)
        calls.ended[outcome].add()
        if usage is not None:
            calls.sent.add(usage.prompt_tokens)
            calls.generated.add(usage.completion_tokens)
            if usage.cost_usd:
                calls.cost.add(usage.cost_usd)
            calls.duration.observe(took_s)
            if usage.empty:
                calls.empty.add(usage.empty)
            if usage.truncated:
                calls.truncated.add(usage.truncated)
            if usage.unmetered:
                calls.unmetered.add(usage.unmetered)

    def fails(self, pool: Pool, asked_by: str, *, is_final: bool) -> None:
        calls = self._of(pool, asked_by)
        (calls.refused if is_final else calls.unavailable).add()

    def looks_up(self, role: str, asked_by: str, *, is_found: bool) -> None:
        counts = self._lookups.get((role, asked_by))
        if counts is None:
            labels = (self._run, _task(asked_by), role)
            counts = self._book.count(CACHE, *labels, "miss"), self._book.count(CACHE, *labels, "hit")
            self._lookups[role, asked_by] = counts
        counts[is_found].add()

    def saves(self, asked_by: str) -> None:
        count = self._saves.get(asked_by)
        if count is None:
            count = self._saves[asked_by] = self._book.count(CHECKPOINTS, self._run, _task(asked_by))
        count.add()

    def _of(self, pool: Pool, asked_by: str) -> _Calls:
        # By values, not by the pool: its hash takes longer than all the rest.
        key = (pool.role, pool.model, asked_by)
        calls = self._calls.get(key)
        if calls is None:
            calls = self._calls[key] = _Calls(self._book, (self._run, _task(asked_by), pool.role, pool.model))
        return calls


class _Calls:
    """The counts of calls to one model in one role, for one task."""

    def __init__(self, book: Book, labels: tuple[str, str, str, str]) -> None:
        run, _, role, model = labels
        self.waiting: Count = book.count(WAITING, *labels)
        self.begun: Count = book.count(REQUESTS, *labels, part=BEGUN)
        self.ended = {outcome: book.count(REQUESTS, *labels, str(outcome)) for outcome in Outcome}
        self.retries: Count = book.count(RETRIES, *labels)
        self.unavailable: Count = book.count(FAILURES, *labels, "unavailable")
        self.refused: Count = book.count(FAILURES, *labels, "refused")
        self.sent: Count = book.count(TOKENS, *labels, "prompt")
        self.generated: Count = book.count(TOKENS, *labels, "completion")
        self.empty: Count = book.count(FLAWS, *labels, "empty")
        self.truncated: Count = book.count(FLAWS, *labels, "truncated")
        self.unmetered: Count = book.count(FLAWS, *labels, "unmetered")
        self.cost: Count = book.count(COST, *labels)
        self.duration: Distribution = book.distribution(DURATION, run, role, model)
        self.wait: Distribution = book.distribution(WAIT, run, role, model)


def _task(asked_by: str) -> str:
    """Trajectories are told apart as ``task/seed``."""
    return asked_by.rpartition("/")[0]


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
