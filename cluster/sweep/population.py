"""A population: the trajectories of several tasks and seeds under one set of hyperparameters."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from statistics import fmean, stdev
from typing import TypeVar

from actors.search import Phase, SearchKey
from actors.supervisor import Supervisor
from cluster.config import RunConfig
from cluster.results.outputs import RunRecord, Status
from cluster.runs.run import run_keys
from cluster.runs.run_folder import RunFolder
from cluster.runs.searches import build_searches
from cluster.session.session import Services, placement
from cluster.sweep.pool import ActorPool
from gpo.checkpoint import Checkpoint
from gpo.data.task import Split, Task
from gpo.trajectory import Trajectory, best_of

_Group = TypeVar("_Group", str, int)


def best_val(trajectory: Trajectory, step: int) -> float:
    """The best ``val`` mean after so many steps, in [0, 1]; after all of them, where it takes fewer."""
    candidates = (candidate for taken in trajectory.steps[:step] for candidate in taken.candidates)
    return (best_of((trajectory.initial, *candidates)) or trajectory.initial).score.mean


def spread(values: Sequence[float]) -> float:
    """The sample standard deviation; 0 for a single value."""
    return stdev(values) if len(values) > 1 else 0.0


class Population:
    """One population and its folder; goes on from the checkpoints that it finds there.

    Args:
        tasks: loaded and checked; those of ``config``, in its order.
        name: tells it apart from those that run beside it.
        is_tested: whether the trajectories' initial and best prompts are scored on ``test``.

    Raises:
        ConfigError: the folder holds something else, or cannot be written to.
        CheckpointError: a checkpoint cannot be read.
    """

    def __init__(
        self, config: RunConfig, tasks: Sequence[Task], folder: RunFolder, *, name: str, is_tested: bool
    ) -> None:
        self._config, self._tasks, self._folder, self._name = config, tasks, folder, name
        self._is_tested = is_tested
        self.record: RunRecord = folder.open(config, run_keys(config), tasks, run_id=name, resume=True)
        steps_of = {task.name: config.optimizer.num_steps(len(task.examples[Split.TRAIN])) for task in tasks}
        self._num_steps = {key: steps_of[key.task] for key in self.record.keys}

    @property
    def num_steps(self) -> int:
        """Steps of its longest search."""
        return max(self._num_steps.values())

    @property
    def steps(self) -> int:
        """Steps that all trajectories have taken; those that are done have taken every step that there is."""
        checkpoints = self.record.checkpoints
        taken = [self._taken(key, checkpoints.get(key)) for key in self.record.keys]
        return min(taken)

    def values(self, step: int) -> list[float]:
        """The best ``val`` mean of each trajectory after so many steps, by task and seed; all must have taken them."""
        return [best_val(self.record.checkpoints[key].trajectory, step) for key in self.record.keys]

    @property
    def val(self) -> float:
        """The mean of the best ``val`` means, in [0, 1]; every trajectory must have begun."""
        return fmean(self.values(self.num_steps))

    @property
    def is_complete(self) -> bool:
        """Whether there is nothing left to do."""
        return all(self._is_done(key) for key in self.record.keys)

    async def run(self, services: Services, pool: ActorPool) -> AsyncGenerator[int, None]:
        """Carry the trajectories on; yields each number of steps once all have taken them.

        Whoever closes the generator ends the population at once; its checkpoints stand, its actors are given back.

        Raises:
            GPOError: as for ``Supervisor.run``.
        """
        if self.is_complete:
            return
        searches = [
            replace(search, is_tested=self._is_tested, population=self._name)
            for search in build_searches(self._config, self._tasks, services.evaluators, services.access)
        ]
        placed = placement(self._config, services.metrics)
        supervisor = Supervisor(searches, self._folder.checkpoints, placed, pool, pool=pool)
        self.record.status, began, before = "running", time.monotonic(), self.record.wall_s
        try:
            async with aclosing(supervisor.run()) as updates:
                known = self.steps
                async for update in updates:
                    if update.checkpoint is not None:
                        self._take(update.key, update.checkpoint)
                    if update.phase is Phase.DONE and update.error:
                        self.record.errors[update.key] = update.error
                        return
                    for step in range(known + 1, min(self.steps, self.num_steps) + 1):
                        known = step
                        yield step
        finally:
            self.record.wall_s = before + time.monotonic() - began

    def save(self, status: Status) -> None:
        """Write the files of a run, but for the checkpoints, which are there already.

        Raises:
            StorageError: one could not be written.
        """
        self.record.status, self.record.finished_at = status, time.time()
        self._folder.save(self.record)

    def _take(self, key: SearchKey, checkpoint: Checkpoint) -> None:
        before = self.record.checkpoints.get(key)
        self.record.checkpoints[key] = checkpoint
        for step in checkpoint.trajectory.steps[len(before.trajectory.steps) if before else 0 :]:
            self._folder.append_step(key, step)

    def _taken(self, key: SearchKey, checkpoint: Checkpoint | None) -> int:
        if checkpoint is None:
            return 0
        taken = len(checkpoint.trajectory.steps)
        return taken if taken < self._num_steps[key] else self.num_steps

    def _is_done(self, key: SearchKey) -> bool:
        checkpoint = self.record.checkpoints.get(key)
        if checkpoint is None or len(checkpoint.trajectory.steps) < self._num_steps[key]:
            return False
        trajectory = checkpoint.trajectory
        return not self._is_tested or {trajectory.initial.prompt.id, trajectory.best.prompt.id} <= set(checkpoint.test)


def means(values: Sequence[float], groups: Sequence[_Group]) -> dict[_Group, float]:
    """Group → the mean of its values, in the order in which the groups come."""
    return {
        group: fmean(value for value, other in zip(values, groups, strict=True) if other == group)
        for group in dict.fromkeys(groups)
    }
