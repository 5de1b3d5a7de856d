"""What a person sees while a run works: a live table on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from actors.search import Phase, SearchKey, Update
from gpo.checkpoint import Checkpoint
from gpo.trajectory import Trajectory

_SILENCE_S = 15.0
"""How long a log may stay silent."""
_LINES_AROUND = 4
"""Lines of a terminal that a live table leaves for its heading, the last line and what was printed before."""
_SHOWN = 4
"""Trajectories named in a sign of life."""


def percent(value: float | None) -> str:
    """A score in [0, 1] as a percentage with one decimal."""
    return "–" if value is None or value != value else f"{100 * value:.1f}"


def duration(seconds: float) -> str:
    """Minutes and seconds, or hours and minutes."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


@dataclass(slots=True)
class Row:
    """How far one trajectory is."""

    key: SearchKey
    num_steps: int
    started: float
    resumed_at: float | None = None
    phase: Phase = Phase.INITIAL
    evaluated: int = 0
    to_evaluate: int = 0
    checkpoint: Checkpoint | None = None
    error: str | None = None

    @property
    def steps(self) -> int:
        """Steps taken."""
        return len(self.checkpoint.trajectory.steps) if self.checkpoint else 0

    @property
    def share(self) -> float:
        """How much of the work is done, in [0, 1]: steps, and the evaluations before and after them, count alike."""
        if self.phase is Phase.DONE:
            return 1.0
        before = 0 if self.phase is Phase.INITIAL else 1
        part = self.evaluated / self.to_evaluate if self.to_evaluate else 0.0
        return (before + self.steps + part) / (self.num_steps + 2)

    @property
    def calls(self) -> int:
        """Model calls that its checkpoint accounts for."""
        if self.checkpoint is None:
            return 0
        spending = self.checkpoint.spending
        return spending.task.requests + spending.optimizer.requests + spending.judge.requests

    def left_s(self, now: float) -> float | None:
        """Seconds that are left, at the pace of this sitting so far; ``None`` while there is no pace yet."""
        done = self.share - (self.resumed_at or 0.0)
        return (now - self.started) / done * (1 - self.share) if done > 0.02 else None

    def take(self, update: Update) -> None:
        """Bring the row up to date."""
        self.phase, self.evaluated, self.to_evaluate = update.phase, update.evaluated, update.to_evaluate
        self.checkpoint = update.checkpoint or self.checkpoint
        self.error = update.error or self.error
        if self.resumed_at is None and update.checkpoint is not None:
            self.resumed_at = self.share if update.checkpoint.trajectory.steps else 0.0


@dataclass(slots=True)
class Progress:
    """All trajectories of a run.

    Attributes:
        num_steps: trajectory → the steps that it will take.
        title: what all this is, where there are several runs; may be empty.
    """

    num_steps: Mapping[SearchKey, int]
    title: str = ""
    rows: dict[SearchKey, Row] = field(init=False)

    def __post_init__(self) -> None:
        now = time.monotonic()
        self.rows = {key: Row(key, steps, now) for key, steps in self.num_steps.items()}

    def left_s(self) -> float | None:
        """Seconds until the last trajectory is done; ``None`` while that cannot be told."""
        now = time.monotonic()
        left = [row.left_s(now) for row in self.rows.values() if row.phase is not Phase.DONE]
        return None if any(one is None for one in left) else max((one for one in left if one is not None), default=0.0)


class View(Protocol):
    """Shows a run."""

    def __enter__(self) -> View: ...

    def __exit__(self, *exception: object) -> None: ...

    def status(self, text: str) -> None:
        """Say what is being waited for."""
        ...

    def begin(self, progress: Progress) -> None:
        """Show these trajectories from now on."""
        ...

    def show(self, update: Update) -> None:
        """Take up news that the progress holds already."""
        ...

    def tick(self) -> None:
        """Show a sign of life; called about once a second."""
        ...


class LiveView:
    """A table that is drawn anew a few times a second."""

    def __init__(self, console: Console) -> None:
        self._started = time.monotonic()
        self._spinner = Spinner("dots", "")
        self._progress: Progress | None = None
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def status(self, text: str) -> None:
        self._spinner.update(text=Text(f"{text} …"))

    def begin(self, progress: Progress) -> None:
        self._progress = progress

    def show(self, update: Update) -> None:
        if update.error:
            self._live.console.print(Text(f"{update.key} failed: {update.error}", style="red"))

    def tick(self) -> None:
        return  # the table is drawn anew by itself

    def _render(self) -> RenderableType:
        if self._progress is None:
            return self._spinner
        left = self._progress.left_s()
        calls = sum(row.calls for row in self._progress.rows.values())
        ending = f"about {duration(left)} left" if left is not None else "time left not known yet"
        title = f"{self._progress.title} · " if self._progress.title else ""
        rows = list(self._progress.rows.values())
        shown = _most_telling(rows, self._live.console.height - _LINES_AROUND)
        if len(shown) < len(rows):
            done = sum(row.phase is Phase.DONE for row in rows)
            title += f"{done} of {len(rows)} trajectories done, {len(shown)} shown · "
        self._spinner.update(
            text=Text(f"{title}{duration(time.monotonic() - self._started)} · {calls} calls · {ending}")
        )
        return Group(self._table(shown), self._spinner)

    def _table(self, rows: Iterable[Row]) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("Task", "Seed", "Step", "Now", "Initial val", "Best val", "Tried", "Calls", "Left"):
            table.add_column(heading, justify="left" if heading in ("Task", "Now") else "right")
        now = time.monotonic()
        for row in rows:
            trajectory = row.checkpoint.trajectory if row.checkpoint else None
            left = row.left_s(now) if row.phase is not Phase.DONE else None
            counted = f" {row.evaluated}/{row.to_evaluate}" if row.to_evaluate else ""
            table.add_row(
                Text(row.key.task),
                str(row.key.seed),
                f"{row.steps}/{row.num_steps}",
                Text("failed", style="red") if row.error else f"{row.phase}{counted}",
                percent(trajectory.initial.score.mean if trajectory else None),
                percent(trajectory.best.score.mean if trajectory else None),
                str(len(trajectory.history)) if trajectory else "0",
                str(row.calls),
                duration(left) if left is not None else "",
            )
        return table


def _most_telling(rows: Sequence[Row], room: int) -> list[Row]:
    """The rows that fit, in their order; failed ones go before those at work, not begun, and done."""

    def rank(row: Row) -> int:
        if row.phase is Phase.DONE:
            return 0 if row.error else 3
        return 1 if row.checkpoint else 2

    kept = {row.key for row in sorted(rows, key=rank)[: max(1, room)]}
    return [row for row in rows if row.key in kept]


class PlainView:
    """A line for each thing that happened, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._progress: Progress | None = None
        self._steps: dict[SearchKey, int] = {}
        self._last = self._started

    def __enter__(self) -> PlainView:
        return self

    def __exit__(self, *exception: object) -> None:
        return

    def status(self, text: str) -> None:
        self._print(f"{text} …")

    def begin(self, progress: Progress) -> None:
        self._progress, self._steps = progress, {}
        if progress.title:
            self._print(progress.title)

    def show(self, update: Update) -> None:
        row = self._progress.rows[update.key] if self._progress else None
        if update.error:
            self._print(f"{update.key}: failed: {update.error}")
        elif row and row.checkpoint and (update.phase is Phase.DONE or self._steps.get(update.key) != row.steps):
            self._steps[update.key] = row.steps
            self._print(self._line(row, row.checkpoint.trajectory))

    def tick(self) -> None:
        if self._progress and time.monotonic() - self._last >= _SILENCE_S:
            busy = [
                f"{row.key} {row.phase}" + (f" {row.evaluated}/{row.to_evaluate}" if row.to_evaluate else "")
                for row in self._progress.rows.values()
                if row.phase is not Phase.DONE
            ]
            more = f" and {len(busy) - _SHOWN} more" if len(busy) > _SHOWN else ""
            self._print(f"at work: {', '.join(busy[:_SHOWN])}{more}")

    def _line(self, row: Row, trajectory: Trajectory) -> str:
        left = self._progress.left_s() if self._progress else None
        step = f"step {row.steps}/{row.num_steps}" if row.steps else "initial prompt scored"
        done = "done" if row.phase is Phase.DONE else step
        ending = f", about {duration(left)} left" if left else ""
        return (
            f"{row.key}: {done}, best val {percent(trajectory.best.score.mean)} "
            f"(initial {percent(trajectory.initial.score.mean)}), {len(trajectory.history)} prompts tried, "
            f"{row.calls} calls{ending}"
        )

    def _print(self, text: str) -> None:
        self._last = time.monotonic()
        elapsed = duration(self._last - self._started)
        self._console.print(f"[{elapsed}] {text}", markup=False, highlight=False, soft_wrap=True)


def view_for(console: Console) -> View:
    """The view that suits where the output goes; a quiet console leaves it to the log."""
    if console.quiet:
        from cluster.log_view import LogView

        return LogView()
    return LiveView(console) if console.is_terminal else PlainView(console)
