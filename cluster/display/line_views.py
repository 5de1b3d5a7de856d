"""A run where there is no terminal: a line for each thing that happened."""

from __future__ import annotations

import logging
import time

from rich.console import Console

from actors.search import Phase, SearchKey, Update
from cluster.display.progress import Progress, Row, duration, percent
from gpo.score import finite
from gpo.trajectory import Trajectory

log = logging.getLogger(__name__)

_SILENCE_S = 15.0
"""How long a log may stay silent."""
_SHOWN = 4
"""Trajectories named in a sign of life."""


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


class LogView:
    """A line in the log for each of them, where nothing else may be printed."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._steps: dict[SearchKey, int] = {}

    def __enter__(self) -> LogView:
        return self

    def __exit__(self, *exception: object) -> None:
        return

    def status(self, text: str) -> None:
        log.info(text)

    def begin(self, progress: Progress) -> None:
        self._progress, self._steps = progress, {}

    def show(self, update: Update) -> None:
        row = self._progress.rows[update.key] if self._progress else None
        about = {"task": update.key.task, "trajectory": str(update.key)}
        if update.error:
            log.error("failed: %s", update.error, extra=about)
        elif row and row.checkpoint and (update.phase is Phase.DONE or self._steps.get(update.key) != row.steps):
            self._steps[update.key] = row.steps
            trajectory = row.checkpoint.trajectory
            log.info(
                "done" if update.phase is Phase.DONE else "step taken" if row.steps else "initial prompt scored",
                extra={
                    **about,
                    "step": row.steps - 1 if row.steps else None,
                    "steps": row.num_steps,
                    "val": finite(trajectory.current.score.mean),
                    "best_val": finite(trajectory.best.score.mean),
                    "best_prompt": trajectory.best.prompt.id,
                    "tried": len(trajectory.history),
                    "calls": row.calls,
                },
            )

    def tick(self) -> None:
        return
