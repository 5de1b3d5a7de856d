"""One trial: a population of trajectories under one set of hyperparameters, reported after each step."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Protocol, TypeVar

from actors.folder import Folder
from actors.lease import LeaseHeld
from cluster.config import RunConfig
from cluster.results.averages import Spread
from cluster.results.run_record import Status
from cluster.runs.run import Run
from cluster.runs.run_folder import RunFolder, leased_folder
from cluster.session.actor_pool import ActorPool
from cluster.session.session import Services
from cluster.sweep.config import SweepConfig
from cluster.sweep.study import Claim, Outcome, SharedStudy
from gpo.data.task import Task
from gpo.errors import ConfigError, ModelUnavailable
from gpo.models.protocol import Usage
from gpo.trajectory import Trajectory, best_of

_T = TypeVar("_T")
_Group = TypeVar("_Group", str, int)


class Population:
    """One population and its folder; it continues from the checkpoints that it finds there.

    Args:
        tasks: loaded and checked; those of ``config``, in its order.
        name: distinguishes it from populations that run at the same time.
        is_tested: whether the trajectories' initial and best prompts are scored on ``test``.

    Attributes:
        num_steps: steps of its longest trajectory.

    Raises:
        ConfigError: the folder holds something else, or cannot be written to.
        CheckpointError: a checkpoint cannot be read.
    """

    def __init__(
        self, config: RunConfig, tasks: Sequence[Task], folder: RunFolder, *, name: str, is_tested: bool
    ) -> None:
        self._folder = folder
        self.record = folder.open(config, tasks, run_id=name, resume=True, is_tested=is_tested)
        self._run = Run(config, tasks, self.record, folder, population=name)
        self.num_steps = max(self.record.num_steps.values())

    @property
    def steps(self) -> int:
        """Steps that all trajectories have taken; a trajectory that takes no more counts as ``num_steps``."""
        record = self.record
        return min(
            taken if (taken := record.steps_taken(key)) < (record.planned_steps(key) or 0) else self.num_steps
            for key in record.keys
        )

    def values(self, step: int) -> list[float]:
        """The best ``val`` mean of each trajectory after so many steps, by task and seed; all must have taken them."""
        return [best_val(self.record.checkpoints[key].trajectory, step) for key in self.record.keys]

    async def run(self, services: Services, pool: ActorPool) -> AsyncGenerator[int, None]:
        """Continue the trajectories; yields each number of steps once all have taken them.

        Closing the generator stops the population; its checkpoints stay, and its actors return to the pool.

        Raises:
            GPOError: as for ``Supervisor.run``.
        """
        record = self.record
        if record.is_complete:
            return
        record.status, began, known = "running", time.monotonic() - record.wall_s, self.steps
        try:
            async with aclosing(self._run.updates(services, pool)) as updates:
                async for _ in updates:
                    if record.errors:
                        return
                    for step in range(known + 1, self.steps + 1):
                        known = step
                        yield step
        finally:
            record.wall_s = time.monotonic() - began

    def save(self, status: Status) -> None:
        """Write the files of a run, except the checkpoints, which are saved already.

        Raises:
            StorageError: a file could not be written.
        """
        self.record.status, self.record.finished_at = status, time.time()
        self._folder.save(self.record)


class Call(Protocol):
    """Calls a function on the study's own thread, and returns its result."""

    async def __call__(self, function: Callable[..., _T], *arguments: Any) -> _T: ...


@dataclass(frozen=True, slots=True)
class TrialUpdate:
    """How far a trial is.

    Attributes:
        step, num_steps: steps that its whole population has taken, and takes in all.
        val: mean best ``val`` after that step; ``None`` before the first.
        outcome: ``None`` while the trial runs.
        error: why it failed.
    """

    number: int
    step: int = 0
    num_steps: int = 0
    val: float | None = None
    outcome: Outcome | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class TrialRunner:
    """Runs trials of a study in this process.

    Attributes:
        call: calls the study's methods.
        notify: receives the trials' updates.
    """

    config: SweepConfig
    study: SharedStudy
    services: Services
    pool: ActorPool
    call: Call
    notify: Callable[[TrialUpdate], None]

    async def run(self, claim: Claim) -> None:
        """Run a trial to its outcome, and report that to the study.

        Raises:
            LeaseLost: another process has taken the trial over.
            ModelUnavailable: an endpoint was away for too long, for the first time in this trial.
            GPOError: the sweep cannot continue; this process still owns the trial.
            asyncio.CancelledError: likewise.
        """
        self.notify(TrialUpdate(claim.number))
        try:
            tuned = self.config.space.config(claim.params)
        except ConfigError as error:  # values inside the corners that do not fit together
            await self._fail(claim, error)
            return
        try:
            async with leased_folder(Folder.at(claim.folder)) as folder:
                name = f"{self.config.study}-{claim.number:04d}"
                population = Population(tuned, self.config.tasks, folder, name=name, is_tested=False)
                await self._finish(claim, population, pruned=await self._take_steps(claim, population))
        except LeaseHeld as error:  # by a process outside the study, such as gpo run --resume
            await self._fail(claim, error)

    async def _fail(self, claim: Claim, error: Exception) -> None:
        await self.call(self.study.tell, claim, "failed", (), {"error": str(error)})
        self.notify(TrialUpdate(claim.number, outcome="failed", error=str(error)))

    async def _take_steps(self, claim: Claim, population: Population) -> bool:
        """Run the population step by step; returns whether it was pruned."""

        async def should_prune(step: int) -> bool:
            values = population.values(step)
            self.notify(TrialUpdate(claim.number, step, population.num_steps, fmean(values)))
            return await self.call(self.study.report, claim, step, values)

        # Earlier steps are reported again: the process that took them may have died before it reported them.
        verdicts = [await should_prune(step) for step in range(1, population.steps + 1)]
        if any(verdicts) and not population.record.is_complete:
            return True
        async with aclosing(population.run(self.services, self.pool)) as steps:
            async for step in steps:
                if (
                    await should_prune(step) and step < population.num_steps
                ):  # pruning after the last step saves nothing
                    return True
        return False

    async def _finish(self, claim: Claim, population: Population, *, pruned: bool) -> None:
        record, steps = population.record, population.steps
        # An endpoint that is away would fail one trial after the other; a trial that waits can resume later.
        is_away = any(error.startswith(ModelUnavailable.__name__) for error in record.errors.values())
        if is_away and not await self.call(self.study.was_away, claim):
            population.save("interrupted")
            reason = next(iter(record.errors.values()))
            raise ModelUnavailable(f"trial {claim.number} waits, and continues with --resume: {reason}")
        errors = "; ".join(f"{key}: {error}" for key, error in record.errors.items())
        outcome: Outcome = "failed" if errors else "pruned" if pruned else "complete"
        population.save("failed" if errors else "interrupted" if pruned else "completed")
        spent = record.spent
        notes: dict[str, Any] = {
            "steps": steps,
            "spent": [spent.calls, spent.tokens, spent.usd],
            "wall_s": round(record.wall_s, 3),
            **({"error": errors} if errors else {}),
        }
        values: Sequence[float] = ()
        val = None
        if outcome == "complete":
            ends = population.values(population.num_steps)
            val = fmean(ends)
            notes["by_task"] = means(ends, [key.task for key in record.keys])
            notes["stderr"] = Spread(means(ends, [key.seed for key in record.keys])).stderr
            tokens, usd = cost(record.usage_by_role().values())
            objectives = {"val": val, "tokens": tokens, "usd": usd}
            values = [objectives[objective] for objective in self.study.objectives]
        await self.call(self.study.tell, claim, outcome, values, notes)
        self.notify(TrialUpdate(claim.number, steps, population.num_steps, val, outcome, errors))


def best_val(trajectory: Trajectory, step: int) -> float:
    """The best ``val`` mean after so many steps, in [0, 1]; after all of them, where it takes fewer."""
    candidates = (candidate for taken in trajectory.steps[:step] for candidate in taken.candidates)
    return (best_of((trajectory.initial, *candidates)) or trajectory.initial).score.mean


def spread(values: Sequence[float]) -> float:
    """The sample standard deviation; 0 for a single value."""
    return stdev(values) if len(values) > 1 else 0.0


def means(values: Sequence[float], groups: Sequence[_Group]) -> dict[_Group, float]:
    """Group → the mean of its values, in the order in which the groups come."""
    return {
        group: fmean(value for value, other in zip(values, groups, strict=True) if other == group)
        for group in dict.fromkeys(groups)
    }


def cost(usages: Iterable[Usage]) -> tuple[float, float]:
    """Tokens and dollars, as if no completion had been cached before.

    A cached call counts with the tokens and the price of the original call. Otherwise the first trial would pay for the
    initial prompts alone, and a setting that was tried before would be free.

    Args:
        usages: one for each role.
    """
    tokens = usd = 0.0
    for usage in usages:
        tokens += usage.prompt_tokens + usage.completion_tokens + usage.cached_tokens
        usd += usage.cost_usd + usage.cached_usd
    return tokens, usd
