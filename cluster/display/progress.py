"""The progress of a run while it works, and the interface of the views that show it.

The views are in ``live_view`` (a terminal) and ``line_views`` (plain lines and JSON).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from actors.search import Phase, SearchKey, Update
from gpo.checkpoint import Checkpoint
from gpo.intervals import LEVEL, interval
from gpo.limits.messages import Spent, Wait
from gpo.models.protocol import Usage
from gpo.score import Score
from gpo.strategies.stopping import StoppingRule

_PACE_OVER_S = 30.0
"""Seconds over which calls per second are averaged."""


def percent(value: float | None) -> str:
    """A score in [0, 1] as a percentage with one decimal."""
    return "–" if value is None or value != value else f"{100 * value:.1f}"


def percent_range(ends: tuple[float, float]) -> str:
    """An interval in [0, 1] in whole percent, for tables: ``82–97``; empty if there is none."""
    low, high = ends
    return "" if low != low else f"{100 * low:.0f}–{100 * high:.0f}"


def percent_with_range(score: Score) -> str:
    """The mean of a complete score with its interval: ``91.7 (82–97)``."""
    shown = percent_range(interval(score))
    return f"{percent(score.mean)} ({shown})" if shown else percent(score.mean)


def percent_with_interval(score: Score) -> str:
    """The mean with its interval, in words: ``91.7 % (90 % interval: 82.1 to 96.6)``."""
    low, high = interval(score)
    shown = f" ({100 * LEVEL:.0f} % interval: {percent(low)} to {percent(high)})" if score.scored else ""
    return f"{percent(score.mean)} %{shown}"


def duration(seconds: float) -> str:
    """Minutes and seconds, or hours and minutes."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


@dataclass(slots=True)
class Row:
    """The progress of one trajectory.

    Attributes:
        key: of the trajectory.
        num_steps: steps that it will take, unless it stops early.
        started: monotonic time at which this attempt began.
        resumed_at: share of the work that earlier attempts had done; ``None`` until the first update.
    """

    key: SearchKey
    num_steps: int
    started: float
    resumed_at: float | None = None
    phase: Phase = Phase.INITIAL
    evaluated: int = 0
    to_evaluate: int = 0
    checkpoint: Checkpoint | None = None
    error: str | None = None
    usage: Usage = field(default_factory=Usage)

    @property
    def steps(self) -> int:
        """Steps taken."""
        return len(self.checkpoint.trajectory.steps) if self.checkpoint else 0

    @property
    def share(self) -> float:
        """Share of the work that is done, in [0, 1]; initial and final evaluations count as steps."""
        if self.phase is Phase.DONE:
            return 1.0
        before = 0 if self.phase is Phase.INITIAL else 1
        part = self.evaluated / self.to_evaluate if self.to_evaluate else 0.0
        taken = (
            self.num_steps if self.phase in (Phase.CONFIRMING, Phase.TESTING) else self.steps
        )  # it may have stopped early
        return (before + taken + part) / (self.num_steps + 2)

    @property
    def calls(self) -> int:
        """Model calls that the checkpoint includes."""
        return self.usage.requests

    def left_s(self, now: float) -> float | None:
        """Seconds left at the pace of this attempt; ``None`` while the pace is unknown."""
        done = self.share - (self.resumed_at or 0.0)
        return (now - self.started) / done * (1 - self.share) if done > 0.02 else None

    def receive(self, update: Update) -> None:
        """Apply an update from the trajectory."""
        self.phase, self.evaluated, self.to_evaluate = update.phase, update.evaluated, update.to_evaluate
        if update.checkpoint is not None:
            spending = update.checkpoint.spending  # sums over all steps, so not computed at every redraw
            self.checkpoint, self.usage = update.checkpoint, spending.task + spending.optimizer + spending.judge
        self.error = update.error or self.error
        if self.resumed_at is None and update.checkpoint is not None:
            self.resumed_at = self.share if update.checkpoint.trajectory.steps else 0.0


@dataclass(slots=True)
class Progress:
    """The progress of all trajectories of a run.

    Attributes:
        num_steps: trajectory → the steps that it will take, unless it stops early.
        title: of the run, if there are several; may be empty.
        stopping: when a trajectory stops early.
        spent: by the run so far, earlier attempts included.
        wait: the longest wait for an endpoint; ``None`` if none is long.
    """

    num_steps: Mapping[SearchKey, int]
    title: str = ""
    stopping: StoppingRule = field(default_factory=StoppingRule)
    rows: dict[SearchKey, Row] = field(init=False)
    spent: Spent = field(default_factory=Spent)
    wait: Wait | None = None
    _calls: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])

    def __post_init__(self) -> None:
        now = time.monotonic()
        self.rows = {key: Row(key, steps, now) for key, steps in self.num_steps.items()}

    def receive_spent(self, spent: Spent) -> None:
        """Update the spending; called about once a second."""
        now = time.monotonic()
        self.spent = spent
        self._calls.append((now, spent.calls))
        while now - self._calls[0][0] > _PACE_OVER_S:
            self._calls.popleft()

    @property
    def calls_per_s(self) -> float | None:
        """Answered calls per second in the last seconds; ``None`` while unknown."""
        if len(self._calls) < 2:
            return None
        (first, before), (last, after) = self._calls[0], self._calls[-1]
        return (after - before) / (last - first) if last > first else None

    @property
    def share(self) -> float:
        """Share of the work that is done, in [0, 1]."""
        return sum(row.share for row in self.rows.values()) / len(self.rows) if self.rows else 1.0

    def left_s(self) -> float | None:
        """Seconds until the last trajectory is done; ``None`` while unknown."""
        now = time.monotonic()
        left = [row.left_s(now) for row in self.rows.values() if row.phase is not Phase.DONE]
        return None if any(one is None for one in left) else max((one for one in left if one is not None), default=0.0)


class Announcing(Protocol):
    """Shows what the command waits for."""

    def status(self, text: str) -> None:
        """Show it."""
        ...


class View(Announcing, Protocol):
    """Shows the progress of a run."""

    def __enter__(self) -> View: ...

    def __exit__(self, *exception: object) -> None: ...

    def begin(self, progress: Progress) -> None:
        """Show this progress from now on."""
        ...

    def show(self, update: Update) -> None:
        """Show an update, which the progress already contains."""
        ...

    def tick(self) -> None:
        """Show a sign of life; called about once a second."""
        ...
