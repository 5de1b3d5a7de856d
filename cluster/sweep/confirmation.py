"""The best trial against the paper's defaults, on tasks that no hyperparameter was tuned on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

from actors.folder import Folder
from cluster.runs.run_folder import fingerprint
from cluster.session.models import require_room_to_decay
from cluster.session.session import Services
from cluster.sweep.folder import leased_folder
from cluster.sweep.loading import SweepConfig
from cluster.sweep.pool import ActorPool
from cluster.sweep.population import Population
from cluster.sweep.space import Params, Space
from cluster.sweep.winner import Difference, paired_difference
from gpo.concurrency import gather
from gpo.errors import GPOError

WINNER, PAPER = "the best trial", "the paper's setting"


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What the two came to.

    Attributes:
        trial: the best trial's number.
        params: of either; alike where the paper's setting is the best.
        scores: of either: ``task/seed`` → the best prompt's mean on ``test``, in [0, 1].
        difference: best trial less paper; ``None`` where both are the same setting.
    """

    trial: int
    params: Mapping[str, Params]
    scores: Mapping[str, Mapping[str, float]]
    difference: Difference | None

    @property
    def statement(self) -> str:
        """What follows, in a sentence or two."""
        if self.difference is None:
            return "The paper's setting is the best trial; there is nothing to confirm."
        return self.difference.statement(WINNER, PAPER)


def confirmation_key(config: SweepConfig, params: Params) -> str:
    """Changes with everything that the confirmation of a setting depends on."""
    assert config.section.holdout is not None  # noqa: S101  # else, nothing to do
    return _digest([_held_out(config, params), _held_out(config, config.space.paper), config.section.holdout.alpha])


def _held_out(config: SweepConfig, params: Params) -> str:
    """Of one side: names its folder, so that the winner of before is not in the way of another."""
    assert config.holdout is not None  # noqa: S101
    tasks = [[task.model_dump(mode="json") for task in config.holdout.tasks], *map(fingerprint, config.holdout_tasks)]
    return _digest([sorted(params.items()), list(config.holdout.run.seeds), tasks])


def _digest(document: Any) -> str:
    return blake2b(json.dumps(document, sort_keys=True).encode(), digest_size=6).hexdigest()


async def confirm(
    config: SweepConfig,
    trial: int,
    params: Params,
    folder: Folder,
    services: Services,
    pool: ActorPool,
    announce: Callable[[str, int, int], None],
) -> Confirmation:
    """Run both settings on the held-out tasks, side by side; those that were run before cost nothing.

    Args:
        folder: in which either has one of its own.
        announce: told of which, its steps and all its steps.

    Raises:
        GPOError: a population failed.
    """
    assert config.holdout is not None and config.section.holdout is not None  # noqa: S101, PT018  # else, nothing to do
    settings = {"best": params, "paper": config.space.paper}
    if settings["best"] == settings["paper"]:
        return Confirmation(trial, settings, {}, None)
    space = replace(config.space, base=config.holdout)
    scores = await gather(
        _tested(name, chosen, space, config, folder / f"{name}-{_held_out(config, chosen)}", services, pool, announce)
        for name, chosen in settings.items()
    )
    best, paper = scores
    difference = paired_difference(
        list(best.values()), [paper[key] for key in best], alpha=config.section.holdout.alpha
    )
    return Confirmation(trial, settings, {"best": best, "paper": paper}, difference)


async def _tested(
    name: str,
    params: Params,
    space: Space,
    config: SweepConfig,
    folder: Folder,
    services: Services,
    pool: ActorPool,
    announce: Callable[[str, int, int], None],
) -> dict[str, float]:
    holdout = config.holdout
    assert holdout is not None  # noqa: S101  # as above
    tuned = space.config(params).model_copy(update={"tasks": holdout.tasks, "run": holdout.run})
    require_room_to_decay(tuned, config.holdout_tasks)
    async with leased_folder(folder) as place:
        population = Population(tuned, config.holdout_tasks, place, name=f"{config.study}-{name}", is_tested=True)
        announce(name, population.steps, population.num_steps)
        async for step in population.run(services, pool):
            announce(name, step, population.num_steps)
        record = population.record
        if record.errors:
            key, error = next(iter(record.errors.items()))
            raise GPOError(f"the confirmation of {name} failed: {key}: {error}")
        population.save("completed")
    scores: dict[str, float] = {}
    for key in record.keys:
        checkpoint = record.checkpoints[key]
        scores[str(key)] = checkpoint.test[checkpoint.trajectory.best.prompt.id].score.mean
    return scores


def confirmation_document(confirmation: Confirmation, key: str) -> dict[str, Any]:
    """As it stands in ``sweep.json``; ``key`` is its ``confirmation_key``."""
    difference = confirmation.difference
    return {
        "trial": confirmation.trial,
        "key": key,
        "statement": confirmation.statement,
        "params": {name: dict(params) for name, params in confirmation.params.items()},
        "test": {name: dict(scores) for name, scores in confirmation.scores.items()},
        "difference": None
        if difference is None
        else {
            "mean": difference.mean,
            "low": difference.low,
            "high": difference.high,
            "p": difference.p,
            "pairs": difference.num_pairs,
            "alpha": difference.alpha,
            "significant": difference.is_significant,
        },
    }
