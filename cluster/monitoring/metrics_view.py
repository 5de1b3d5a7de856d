"""Counts the contents of trajectory updates: steps, candidates, scores, phases, and the budget that is left."""

from __future__ import annotations

import math
import time
from collections import Counter

from actors.metrics.catalogue import (
    BUDGET_LEFT,
    CANDIDATE_SCORE,
    EDIT_DISTANCE,
    EXAMPLES,
    RUN_ACTIVE,
    RUN_PROGRESS,
    RUN_STARTED,
    SAMPLES,
    SCORE,
    STALE_STEPS,
    STEP_SIZE,
    STEPS,
    STEPS_DONE,
    STEPS_PLANNED,
    TEST_SCORE,
    TRAJECTORIES,
    Metric,
)
from actors.metrics.counts import Counts
from actors.search import Phase, SearchKey, Update
from cluster.config.run import BudgetConfig
from cluster.display.progress import Progress, View
from cluster.results.run_record import RunRecord
from gpo.checkpoint import Checkpoint
from gpo.limits.messages import Spent
from gpo.trajectory import Candidate, Step, Trajectory


class MetricsView:
    """A view that counts every update and passes it on to another view.

    It counts from checkpoints, so a step that an actor repeats after a restart is counted once.

    Args:
        view: the view that people see.
        counts: of the driver.
        record: of the run; its owner keeps it up to date.
    """

    def __init__(self, view: View, counts: Counts, record: RunRecord, budget: BudgetConfig) -> None:
        self._view, self._counts, self._record, self._budget = view, counts, record, budget
        self._known: dict[SearchKey, int] = {}
        self._phases: dict[SearchKey, str] = {}

    def __enter__(self) -> MetricsView:
        self._view.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._view.__exit__(*exception)

    def status(self, text: str) -> None:
        self._view.status(text)

    def begin(self, progress: Progress) -> None:
        now = time.time()
        self._set(RUN_STARTED, now)
        self._set(RUN_PROGRESS, now)
        self._set(RUN_ACTIVE, 1.0)
        for key, num_steps in progress.num_steps.items():
            self._set(STEPS_PLANNED, num_steps, *_labels(key))
            self._add(STEPS, 0.0, *_labels(key))
            self._enter(key, Phase.INITIAL)
            checkpoint = self._record.checkpoints.get(key)
            if checkpoint is not None:
                self._known[key] = len(checkpoint.trajectory.steps)
                self._state(key, checkpoint)
        self._spent()
        self._view.begin(progress)

    def show(self, update: Update) -> None:
        self._set(RUN_PROGRESS, time.time())
        self._enter(update.key, "failed" if update.error else update.phase)
        if update.checkpoint is not None:
            steps = update.checkpoint.trajectory.steps
            for step in steps[self._known.get(update.key, 0) :]:
                self._step(update.key, step)
            self._known[update.key] = len(steps)
            self._state(update.key, update.checkpoint)
        self._view.show(update)

    def tick(self) -> None:
        self._spent()
        self._view.tick()

    def end(self) -> None:
        """The run has ended."""
        self._spent()
        self._set(RUN_ACTIVE, 0.0)

    def _enter(self, key: SearchKey, phase: str) -> None:
        before = self._phases.get(key)
        if before != phase:
            if before is not None:
                self._add(TRAJECTORIES, -1.0, before)
            self._add(TRAJECTORIES, 1.0, str(phase))
            self._phases[key] = str(phase)

    def _step(self, key: SearchKey, step: Step) -> None:
        self._add(STEPS, 1.0, *_labels(key))
        samples, dropped = step.samples, sum(candidate.is_dropped for candidate in step.candidates)
        fates = {
            "scored": len(step.candidates) - dropped,
            "dropped": dropped,
            "malformed": samples.num_malformed,
            "rejected": samples.num_rejected,
            "repeated": samples.num_repeated,
            "failed": samples.num_failed,
            **Counter(samples.broken),
        }
        for fate, number in fates.items():
            self._add(SAMPLES, number, key.task, fate)
        for candidate in step.candidates:
            self._candidate(key.task, candidate)

    def _candidate(self, task: str, candidate: Candidate) -> None:
        score, run = candidate.score, self._record.run_id
        self._add(EXAMPLES, len(score.scored), task, "scored")
        self._add(EXAMPLES, score.num_unscored, task, "unscored")
        self._counts.observe(EDIT_DISTANCE, candidate.edit_distance, run, task)
        if not candidate.is_dropped and math.isfinite(score.mean):
            self._counts.observe(CANDIDATE_SCORE, score.mean, run, task)

    def _state(self, key: SearchKey, checkpoint: Checkpoint) -> None:
        trajectory, labels = checkpoint.trajectory, _labels(key)
        self._set(STEPS_DONE, len(trajectory.steps), *labels)
        if self._record.stopped_by(key):
            self._set(STEPS_PLANNED, len(trajectory.steps), *labels)
        self._set(STALE_STEPS, _steps_since_improvement(trajectory), *labels)
        ends = {"initial": trajectory.initial, "current": trajectory.current, "best": trajectory.best}
        for name, candidate in ends.items():
            self._set(SCORE, candidate.score.mean, *labels, name)
            if name != "current" and (test := checkpoint.test.get(candidate.prompt.id)) is not None:
                self._set(TEST_SCORE, test.score.mean, *labels, name)
        if trajectory.steps and (step_size := trajectory.steps[-1].step_size) is not None:
            self._set(STEP_SIZE, step_size, *labels)

    def _spent(self) -> None:
        for name, share in budget_left(self._budget, self._record.spent, self._record.wall_s).items():
            self._set(BUDGET_LEFT, share, name)

    def _set(self, metric: Metric, value: float, *labels: str) -> None:
        if math.isfinite(value):
            self._counts.set(metric, value, self._record.run_id, *labels)

    def _add(self, metric: Metric, amount: float, *labels: str) -> None:
        self._counts.add(metric, self._record.run_id, *labels, amount=amount)


def budget_left(budget: BudgetConfig, spent: Spent, wall_s: float) -> dict[str, float]:
    """Name of each bound of the budget → the share of it that is left, in [0, 1]."""
    used = {"calls": spent.calls, "tokens": spent.tokens, "usd": spent.usd, "wall_s": wall_s}
    bounds = {name: getattr(budget, name) for name in used}
    return {name: max(0.0, 1 - used[name] / most) for name, most in bounds.items() if most is not None}


def _labels(key: SearchKey) -> tuple[str, str]:
    return key.task, str(key.seed)


def _steps_since_improvement(trajectory: Trajectory) -> int:
    best = trajectory.best
    found = (step.index for step in trajectory.steps if best in step.candidates)
    return len(trajectory.steps) - 1 - next(found, -1)
