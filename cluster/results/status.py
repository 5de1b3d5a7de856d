"""``gpo status``: how far a run is that was started elsewhere, as its folder tells."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from actors.search import SearchKey
from cluster.display.progress import duration, percent
from cluster.results.run_record import RunRecord, Status
from cluster.results.stored_run import RunReader, StoredRun
from gpo.limits.messages import Spent
from gpo.score import finite
from gpo.text import without_controls

SILENT_AFTER_S = 120.0
"""Seconds without any change in the folder of a run that is under way, after which it counts as silent. A living one
writes every 10 s, but for the time in which Ray and an embedded model start."""

_LINES_AROUND = 6
"""Lines of a terminal beside the rows of the table."""

State = Literal["silent"] | Status


@dataclass(frozen=True, slots=True)
class TrajectoryStatus:
    """How far a trajectory is; scores are ``val`` means in [0, 1], ``None`` where there is none yet."""

    task: str
    seed: int
    steps: int
    initial: float | None
    best: float | None
    tried: int
    done: bool
    error: str | None


@dataclass(frozen=True, slots=True)
class RunStatus:
    """How far a run is.

    Attributes:
        state: as in ``summary.json``, or ``silent`` where the run says that it works and shows no sign of life.
        steps, of_steps: taken by all trajectories, and to be taken; ``None`` where that depends on the data.
        wall_s: seconds that the run has worked.
        left_s: seconds until the end at the pace so far; ``None`` where it is not under way, or there is no pace yet.
        age_s: seconds since anything in the folder changed.
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
        """Whether it may still change."""
        return self.state in ("pending", "running")

    @property
    def is_well(self) -> bool:
        """Whether it is complete, or on its way there."""
        return self.is_under_way or self.state == "completed"


def run_status(run: StoredRun, now: float) -> RunStatus:
    """What can be said of a run; ``now`` is in seconds since 1970."""
    record = run.record
    rows = [_trajectory(record, key) for key in record.keys]
    age_s = max(0.0, now - run.changed_at)
    state: State = record.status
    if state in ("pending", "running") and age_s > SILENT_AFTER_S:
        state = "silent"
    steps = sum(row.steps for row in rows)
    of_steps = sum(record.num_steps.values()) if record.num_steps else None
    left_s = None
    if state == "running" and of_steps and steps:
        left_s = record.wall_s * (of_steps - steps) / steps
    return RunStatus(
        record.run_id, state, record.ended_by or None, steps, of_steps, record.wall_s, left_s, age_s, record.spent, rows
    )


def _trajectory(record: RunRecord, key: SearchKey) -> TrajectoryStatus:
    checkpoint, error = record.checkpoints.get(key), record.errors.get(key)
    task = without_controls(key.task)  # the name of a folder, which may be anything
    if checkpoint is None:
        return TrajectoryStatus(task, key.seed, 0, None, None, 0, done=False, error=error)
    trajectory = checkpoint.trajectory
    return TrajectoryStatus(
        task,
        key.seed,
        len(trajectory.steps),
        finite(trajectory.initial.score.mean),
        finite(trajectory.best.score.mean),
        len(trajectory.history),
        done=record.is_done(key),
        error=error,
    )


def status_document(status: RunStatus) -> Mapping[str, Any]:
    """The status as JSON; ``best`` is each task's highest ``val`` mean."""
    document = asdict(status)
    document["best"] = {task: row.best for task, row in _best_by_task(status).items()}
    for name in ("wall_s", "left_s", "age_s"):
        document[name] = None if document[name] is None else round(document[name], 1)
    return document


def status_view(status: RunStatus, room: int | None = None) -> RenderableType:
    """The status for a terminal: a line on the whole, a table of the trajectories.

    Args:
        room: rows of the table, at most; where there are more, those that tell most are shown. ``None`` shows all.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("Task", "Seed", "Step", "Initial val", "Best val", "Tried", ""):
        table.add_column(heading, justify="left" if heading in ("Task", "") else "right", overflow="fold")
    rows = status.trajectories if room is None else _most_telling(status.trajectories, room)
    per_trajectory = status.of_steps // len(status.trajectories) if status.of_steps else None
    for row in rows:
        step = str(row.steps) if per_trajectory is None else f"{row.steps}/{per_trajectory}"
        note = Text(row.error, style="red") if row.error else Text("done" if row.done else "")
        scores = (percent(row.initial), percent(row.best))
        table.add_row(Text(row.task), str(row.seed), step, *scores, str(row.tried), note)
    lines: list[RenderableType] = [Text(line) for line in status_lines(status)]
    if len(rows) < len(status.trajectories):
        lines.append(Text(f"{len(rows)} of {len(status.trajectories)} trajectories shown"))
    return Group(*lines, table)


def status_lines(status: RunStatus) -> list[str]:
    """The whole in two or three lines."""
    steps = f"step {status.steps:,}" + (f" of {status.of_steps:,}" if status.of_steps else "")
    left = f", about {duration(status.left_s)} left" if status.left_s is not None else ""
    spent = status.spent
    lines = [
        f"{status.run_id}: {status.state}, {steps}, {duration(status.wall_s)} at work{left}",
        f"{spent.calls:,} calls, {spent.tokens:,} tokens, ${spent.usd:.2f}; last change {duration(status.age_s)} ago",
    ]
    if status.ended_by:
        lines.append(f"stopped by {status.ended_by}")
    if status.state == "silent":
        lines.append("It shows no sign of life: its process has probably died. Go on with: gpo run … --resume")
    return lines


def _best_by_task(status: RunStatus) -> dict[str, TrajectoryStatus]:
    best: dict[str, TrajectoryStatus] = {}
    for row in status.trajectories:
        if row.best is not None and (row.task not in best or row.best > (best[row.task].best or 0.0)):
            best[row.task] = row
    return best


def _most_telling(rows: Sequence[TrajectoryStatus], room: int) -> list[TrajectoryStatus]:
    """The rows that fit, in their order: failed ones before those at work, not begun, and done."""
    order = sorted(rows, key=lambda row: 0 if row.error else 3 if row.done else 1 if row.tried else 2)
    kept = {id(row) for row in order[: max(1, room)]}
    return [row for row in rows if id(row) in kept]


def print_status(reader: RunReader, out: Console, as_document: bool) -> RunStatus:
    """Look once, and print what is seen; as JSON where ``as_document``.

    Raises:
        ConfigError: there is no run.
    """
    status = run_status(reader.read(), time.time())
    if as_document:
        out.print(_json(status, indent=2), highlight=False, markup=False, soft_wrap=True)
    else:
        out.print(status_view(status))
    return status


def follow_status(reader: RunReader, out: Console, as_document: bool, every_s: float) -> RunStatus:
    """Look every so many seconds until the run is not under way any more; the last look.

    A terminal gets a view that is drawn anew, a pipe some lines for each change, JSON a line for each change.

    Raises:
        ConfigError: there is no run.
    """
    if out.is_terminal and not as_document:
        with Live(console=out, auto_refresh=False) as live:
            while True:
                status = run_status(reader.read(), time.time())
                live.update(status_view(status, room=out.height - _LINES_AROUND), refresh=True)
                if not status.is_under_way:
                    return status
                time.sleep(every_s)
    shown: Any = None
    while True:
        status = run_status(reader.read(), time.time())
        seen = status.state, status.steps, [row.done for row in status.trajectories]
        if seen != shown:
            shown = seen
            for line in [_json(status)] if as_document else status_lines(status):
                out.print(line, highlight=False, markup=False, soft_wrap=True)
        if not status.is_under_way:
            return status
        time.sleep(every_s)


def _json(status: RunStatus, indent: int | None = None) -> str:
    return json.dumps(status_document(status), indent=indent, ensure_ascii=False)
