"""The views without a terminal: a line per event."""

from __future__ import annotations

import logging
import time
from typing import Self

from rich.console import Console

from actors.search import Phase, SearchKey, Update
from cluster.display.progress import Progress, Row, duration, percent, percent_with_range
from cluster.display.waiting import SILENCE_S, Reminder
from gpo.score import finite
from gpo.trajectory import Trajectory

log = logging.getLogger(__name__)

_SHOWN = 4
"""Trajectories that a sign of life names."""


class _LineView:
    """Finds out which updates are events: failures, initial scores, steps and ends."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._steps: dict[SearchKey, int] = {}
        self._reminder = Reminder(self._say)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._reminder.end()

    def status(self, text: str) -> None:
        self._reminder.end()
        self._say(f"{text} …")
        self._reminder.begin(text)

    def begin(self, progress: Progress) -> None:
        self._reminder.end()
        self._progress, self._steps = progress, {}

    def show(self, update: Update) -> None:
        row = self._progress.rows[update.key] if self._progress else None
        if update.error:
            self._failed(update.key, update.error)
        elif row and row.checkpoint and (update.phase is Phase.DONE or self._steps.get(update.key) != row.steps):
            self._steps[update.key] = row.steps
            event = "done" if update.phase is Phase.DONE else "step taken" if row.steps else "initial prompt scored"
            self._reached(event, row, row.checkpoint.trajectory)

    def _stopped_by(self, trajectory: Trajectory) -> str | None:
        return self._progress.stopping.reason(trajectory) if self._progress else None

    def _say(self, text: str) -> None:
        raise NotImplementedError

    def _failed(self, key: SearchKey, error: str) -> None:
        raise NotImplementedError

    def _reached(self, event: str, row: Row, trajectory: Trajectory) -> None:
        raise NotImplementedError


class PlainView(_LineView):
    """A line per event, for pipes and files."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._started = self._last = time.monotonic()

    def begin(self, progress: Progress) -> None:
        super().begin(progress)
        if progress.title:
            self._say(progress.title)

    def tick(self) -> None:
        if self._progress and time.monotonic() - self._last >= SILENCE_S:
            busy = [
                f"{row.key} {row.phase}" + (f" {row.evaluated}/{row.to_evaluate}" if row.to_evaluate else "")
                for row in self._progress.rows.values()
                if row.phase is not Phase.DONE
            ]
            more = f" and {len(busy) - _SHOWN} more" if len(busy) > _SHOWN else ""
            wait = f"; {self._progress.wait}" if self._progress.wait else ""
            self._say(f"working: {', '.join(busy[:_SHOWN])}{more}{wait}")

    def _failed(self, key: SearchKey, error: str) -> None:
        self._say(f"{key}: failed: {error}")

    def _reached(self, event: str, row: Row, trajectory: Trajectory) -> None:
        left = self._progress.left_s() if self._progress else None
        if event == "step taken":
            event = f"step {row.steps}/{row.num_steps}"
        elif event == "done" and (reason := self._stopped_by(trajectory)):
            event = f"done after step {row.steps}/{row.num_steps} ({reason})"
        ending = f", about {duration(left)} left" if left else ""
        self._say(
            f"{row.key}: {event}, best val {percent_with_range(trajectory.best.score)}, "
            f"initial {percent(trajectory.initial.score.mean)}, {len(trajectory.history)} prompts tried, "
            f"{row.calls} calls{ending}"
        )

    def _say(self, text: str) -> None:
        self._last = time.monotonic()
        elapsed = duration(self._last - self._started)
        self._console.print(f"[{elapsed}] {text}", markup=False, highlight=False, soft_wrap=True)


class LogView(_LineView):
    """A log line per event, where standard error holds JSON lines only."""

    _warned = 0.0

    def tick(self) -> None:
        wait = self._progress.wait if self._progress else None
        if wait is not None and time.monotonic() - self._warned >= SILENCE_S:
            self._warned = time.monotonic()
            log.warning("%s", wait)

    def _say(self, text: str) -> None:
        log.info("%s", text)

    def _failed(self, key: SearchKey, error: str) -> None:
        log.error("failed: %s", error, extra=_about(key))

    def _reached(self, event: str, row: Row, trajectory: Trajectory) -> None:
        log.info(
            event,
            extra={
                **_about(row.key),
                "step": row.steps - 1 if row.steps else None,
                "steps": row.num_steps,
                "val": finite(trajectory.current.score.mean),
                "best_val": finite(trajectory.best.score.mean),
                "best_prompt": trajectory.best.prompt.id,
                "tried": len(trajectory.history),
                "calls": row.calls,
                "stopped_by": self._stopped_by(trajectory),
            },
        )


def _about(key: SearchKey) -> dict[str, str]:
    return {"task": key.task, "trajectory": str(key)}
