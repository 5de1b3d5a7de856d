"""A run's progress as log lines, where nothing else may be printed."""

from __future__ import annotations

import logging

from actors.search import Phase, SearchKey, Update
from cluster.progress import Progress
from gpo.score import finite

log = logging.getLogger(__name__)


class LogView:
    """A line for each step; see ``cluster.progress.View``."""

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
