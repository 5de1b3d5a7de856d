"""One trial: a population is run, told of step by step, and perhaps given up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from actors.folder import Folder
from actors.lease import LeaseHeld
from cluster.results.averages import Spread
from cluster.session.session import Services
from cluster.sweep.folder import leased_folder
from cluster.sweep.loading import SweepConfig
from cluster.sweep.pool import ActorPool
from cluster.sweep.population import Population, means
from cluster.sweep.study import Claim, Outcome, SharedStudy
from cluster.sweep.winner import cost
from gpo.errors import ConfigError, ModelUnavailable

_T = TypeVar("_T")


class Call(Protocol):
    """Calls something on the study's own thread."""

    async def __call__(self, function: Callable[..., _T], *arguments: Any) -> _T: ...


@dataclass(frozen=True, slots=True)
class TrialNews:
    """How far a trial is.

    Attributes:
        step, num_steps: steps that its whole population has taken, and will take.
        val: mean best ``val`` after that step; ``None`` before the first.
        outcome: once it has one.
        error: why it failed.
    """

    number: int
    step: int = 0
    num_steps: int = 0
    val: float | None = None
    outcome: Outcome | None = None
    error: str = ""


async def run_trial(
    claim: Claim,
    config: SweepConfig,
    study: SharedStudy,
    services: Services,
    pool: ActorPool,
    call: Call,
    announce: Callable[[TrialNews], None],
) -> None:
    """Carry a trial to its outcome and tell the study.

    Raises:
        LeaseLost: another process has taken the trial over.
        ModelUnavailable: an endpoint was away for too long, for the first time in this trial.
        GPOError: the sweep cannot go on; the trial is still ours.
        asyncio.CancelledError: likewise.
    """
    announce(TrialNews(claim.number))

    async def failed(error: Exception) -> None:
        await call(study.tell, claim, "failed", (), {"error": str(error)})
        announce(TrialNews(claim.number, outcome="failed", error=str(error)))

    try:
        tuned = config.space.config(claim.params)
    except ConfigError as error:  # values between the corners that do not fit together
        await failed(error)
        return
    try:
        async with leased_folder(Folder.at(claim.folder)) as folder:
            name = f"{config.study}-{claim.number:04d}"
            population = Population(tuned, config.tasks, folder, name=name, is_tested=False)
            pruned = await _carried_on(claim, population, study, services, pool, call, announce)
            await _told(claim, population, study, call, announce, pruned=pruned)
    except LeaseHeld as error:  # by none that works on the study: somebody resumes it as a run
        await failed(error)


async def _carried_on(
    claim: Claim,
    population: Population,
    study: SharedStudy,
    services: Services,
    pool: ActorPool,
    call: Call,
    announce: Callable[[TrialNews], None],
) -> bool:
    """Take the population's steps; whether it was pruned."""

    async def is_hopeless(step: int) -> bool:
        values = population.values(step)
        announce(TrialNews(claim.number, step, population.num_steps, sum(values) / len(values)))
        return await call(study.report, claim, step, values)

    # What was reached before is told again: whoever was at it may have died before it told.
    pruned = any([await is_hopeless(step) for step in range(1, population.steps + 1)]) and not population.is_complete
    if not pruned:
        async with aclosing(population.run(services, pool)) as steps:
            async for step in steps:
                # After the last step there is nothing to be saved by giving up.
                if await is_hopeless(step) and step < population.num_steps:
                    return True
    return pruned


async def _told(
    claim: Claim,
    population: Population,
    study: SharedStudy,
    call: Call,
    announce: Callable[[TrialNews], None],
    *,
    pruned: bool,
) -> None:
    record = population.record
    # An endpoint that is away would use up one trial after the other; where it comes back, each can go on.
    is_away = any(error.startswith(ModelUnavailable.__name__) for error in record.errors.values())
    if is_away and not await call(study.was_away, claim):
        population.save("interrupted")
        raise ModelUnavailable(
            f"trial {claim.number} waits, and goes on with --resume: {next(iter(record.errors.values()))}"
        )
    errors = [f"{key}: {error}" for key, error in record.errors.items()]
    outcome: Outcome = "failed" if errors else "pruned" if pruned else "complete"
    population.save("failed" if errors else "completed" if not pruned else "interrupted")
    spent = record.spent
    notes: dict[str, Any] = {
        "steps": population.steps,
        "spent": [spent.calls, spent.tokens, spent.usd],
        "wall_s": round(record.wall_s, 3),
        **({"error": "; ".join(errors)} if errors else {}),
    }
    values: Sequence[float] = ()
    val = None
    if outcome == "complete":
        ends = population.values(population.num_steps)
        val = population.val
        notes["by_task"] = means(ends, [key.task for key in record.keys])
        by_seed = means(ends, [key.seed for key in record.keys])
        notes["stderr"] = Spread(by_seed).stderr
        tokens, usd = cost(record.usage_by_role().values())
        objectives = {"val": val, "tokens": tokens, "usd": usd}
        values = [objectives[objective] for objective in study.objectives]
    await call(study.tell, claim, outcome, values, notes)
    steps = population.steps
    announce(TrialNews(claim.number, steps, population.num_steps, val, outcome, "; ".join(errors)))
