"""``gpo status``: the progress of a run in another process, read from its folder."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from actors.search import SearchKey
from cluster.display.console import FittingTable
from cluster.display.progress import duration, percent, percent_range
from cluster.results.intervals import score_interval
from cluster.results.run_record import RunRecord, Status
from cluster.results.stored_run import RunReader, StoredRun
from gpo.limits.messages import Spent
from gpo.score import finite
from gpo.text import without_controls

SILENT_AFTER_S = 120.0
"""Seconds without a change in the folder after which a run that has not ended counts as silent. A running process
writes every 10 s, except while Ray and an embedded model start."""

_LINES_AROUND = 6
"""Lines of the terminal that are not rows of the table."""
_NARROW = 60
"""A terminal of fewer columns shows the table as a list, with several lines for each trajectory."""

State = Literal["silent"] | Status


@dataclass(frozen=True, slots=True)
class TrajectoryStatus:
    """The progress of a trajectory; scores are ``val`` means in [0, 1], ``None`` before the first.

    Attributes:
        of_steps: steps that it takes in all; ``None`` where that depends on the data.
        best_interval: ``level``, ``low`` and ``high`` of the interval of ``best``.
        best_scored: number of examples that ``best`` is the mean of.
        stopped_by: why it stopped early, if it did.
    """

    task: str
    seed: int
    steps: int
    of_steps: int | None
    initial: float | None = None
    best: float | None = None
    best_interval: Mapping[str, float] | None = None
    best_scored: int = 0
    tried: int = 0
    done: bool = False
    stopped_by: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class RunStatus:
    """The progress of a run.

    Attributes:
        state: as in ``summary.json``; or ``silent`` where that is ``running``, but nothing changes.
        steps, of_steps: steps of all trajectories so far and in all; ``None`` where the latter depend on the data.
        wall_s: seconds of work.
        left_s: estimated seconds until the end; ``None`` before the first step, or where the run has ended.
        age_s: seconds since the last change in the folder.
    """

    run_id: str
    state: State
    ended_by: str | None
    steps: int
    of_steps: int | None
    wall_s: float
    left_s: float | None
    age_s: float
    spent: Spent
    trajectories: Sequence[TrajectoryStatus]

    @property
    def is_under_way(self) -> bool:
        """Whether the run has not ended."""
        return self.state in ("pending", "running")

    @property
    def is_well(self) -> bool:
        """Whether the run is complete or still works."""
        return self.is_under_way or self.state == "completed"


def run_status(run: StoredRun, now: float) -> RunStatus:
    """The status of a run; ``now`` is in seconds since 1970."""
    record = run.record
    rows = [_trajectory(record, key) for key in record.keys]
    age_s = max(0.0, now - run.changed_at)
    state: State = record.status
    if state in ("pending", "running") and age_s > SILENT_AFTER_S:
        state = "silent"
    steps = sum(row.steps for row in rows)
    of_steps = sum(row.of_steps or 0 for row in rows) if record.num_steps else None
    left_s = None
    if state == "running" and of_steps and steps:
        left_s = record.wall_s * (of_steps - steps) / steps
    return RunStatus(
        record.run_id, state, record.ended_by or None, steps, of_steps, record.wall_s, left_s, age_s, record.spent, rows
    )


def _trajectory(record: RunRecord, key: SearchKey) -> TrajectoryStatus:
    checkpoint, error = record.checkpoints.get(key), record.errors.get(key)
    task = without_controls(key.task)  # the name of a folder, which may hold any character
    if checkpoint is None:
        return TrajectoryStatus(task, key.seed, 0, record.num_steps.get(key), error=error)
    trajectory = checkpoint.trajectory
    return TrajectoryStatus(
        task,
        key.seed,
        len(trajectory.steps),
        record.planned_steps(key),
        finite(trajectory.initial.score.mean),
        finite(trajectory.best.score.mean),
        score_interval(trajectory.best.score),
        len(trajectory.best.score.scored),
        len(trajectory.history),
        done=record.is_done(key),
        stopped_by=record.stopped_by(key),
        error=error,
    )


def status_document(status: RunStatus) -> Mapping[str, Any]:
    """The status as JSON; ``best`` is each task's highest ``val`` mean."""
    document = asdict(status)
    document["best"] = {task: row.best for task, row in _best_by_task(status).items()}
    for name in ("wall_s", "left_s", "age_s"):
        document[name] = None if document[name] is None else round(document[name], 1)
    return document


def status_view(status: RunStatus, max_rows: int | None = None) -> RenderableType:
    """The status for a terminal: lines on the run, and a table of its trajectories.

    Args:
        max_rows: rows of the table, at most; the most interesting trajectories are shown. ``None`` shows all.
    """
    table = FittingTable(box=None, pad_edge=False, header_style="bold")
    for heading in ("Task", "Seed", "Step", "Initial val", "Best val", "Tried", ""):
        table.add_column(heading, justify="left" if heading in ("Task", "") else "right", overflow="fold")
    rows = status.trajectories if max_rows is None else _most_interesting(status.trajectories, max_rows)
    for row in rows:
        step = str(row.steps) if row.of_steps is None else f"{row.steps}/{row.of_steps}"
        ending = f"done: {row.stopped_by}" if row.stopped_by else "done"
        note = Text(row.error, style="red") if row.error else Text(ending if row.done else "")
        known = row.best_interval
        ends = f" ({percent_range((known['low'], known['high']))})" if known else ""
        scores = (percent(row.initial), f"{percent(row.best)}{ends}")
        table.add_row(Text(row.task), str(row.seed), step, *scores, str(row.tried), note)
    lines: list[RenderableType] = [Text(line) for line in status_lines(status)]
    if len(rows) < len(status.trajectories):
        lines.append(Text(f"{len(rows)} of {len(status.trajectories)} trajectories shown"))
    return Group(*lines, table)


def status_lines(status: RunStatus) -> list[str]:
    """The run in two or three lines."""
    steps = f"step {status.steps:,}" + (f" of {status.of_steps:,}" if status.of_steps else "")
    left = f", about {duration(status.left_s)} left" if status.left_s is not None else ""
    spent = status.spent
    lines = [
        f"{status.run_id}: {status.state}, {steps}, {duration(status.wall_s)} of work{left}",
        f"{spent.calls:,} calls, {spent.tokens:,} tokens, ${spent.usd:.2f}; last change {duration(status.age_s)} ago",
    ]
    if status.ended_by:
        lines.append(f"stopped by {status.ended_by}")
    if status.state == "silent":
        lines.append("Nothing has changed for a while: the process has probably died. Resume with: gpo run … --resume")
    return lines


def _best_by_task(status: RunStatus) -> dict[str, TrajectoryStatus]:
    best: dict[str, TrajectoryStatus] = {}
    for row in status.trajectories:
        if row.best is not None and (row.task not in best or row.best > (best[row.task].best or 0.0)):
            best[row.task] = row
    return best


def _most_interesting(rows: Sequence[TrajectoryStatus], max_rows: int) -> list[TrajectoryStatus]:
    """The rows that fit, in their order: failed trajectories first, then running, not begun, done."""
    order = sorted(rows, key=lambda row: 0 if row.error else 3 if row.done else 1 if row.tried else 2)
    kept = {id(row) for row in order[: max(1, max_rows)]}
    return [row for row in rows if id(row) in kept]


def print_status(reader: RunReader, out: Console, as_document: bool) -> RunStatus:
    """Print the status once; as JSON if ``as_document``.

    Raises:
        ConfigError: the folder holds no run.
    """
    status = run_status(reader.read(), time.time())
    if as_document:
        out.print(_json(status, indent=2), highlight=False, markup=False, soft_wrap=True)
    else:
        out.print(status_view(status))
    return status


def follow_status(reader: RunReader, out: Console, as_document: bool, every_s: float) -> RunStatus:
    """Show the status every ``every_s`` seconds until the run has ended; returns the last status.

    A terminal shows a live view; a pipe gets some lines for each change, or one line of JSON.

    Raises:
        ConfigError: the folder holds no run.
    """
    if out.is_interactive and not as_document:
        lines_per_row = 1 if out.width >= _NARROW else 4
        with Live(console=out, auto_refresh=False) as live:
            while True:
                status = run_status(reader.read(), time.time())
                live.update(status_view(status, max_rows=(out.height - _LINES_AROUND) // lines_per_row), refresh=True)
                if not status.is_under_way:
                    return status
                time.sleep(every_s)
    shown: Any = None
    while True:
        status = run_status(reader.read(), time.time())
        current = status.state, status.steps, [row.done for row in status.trajectories]
        if current != shown:
            shown = current
            for line in [_json(status)] if as_document else status_lines(status):
                out.print(line, highlight=False, markup=False, soft_wrap=True)
        if not status.is_under_way:
            return status
        time.sleep(every_s)


def _json(status: RunStatus, indent: int | None = None) -> str:
    return json.dumps(status_document(status), indent=indent, ensure_ascii=False)
