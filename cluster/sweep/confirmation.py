"""The confirmation of a sweep: its best trial against the paper's setting, on held-out tasks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from math import isfinite, sqrt
from statistics import fmean, stdev
from typing import Any

from actors.folder import Folder
from cluster.config.section import lasting
from cluster.runs.run_folder import leased_folder
from cluster.session.actor_pool import ActorPool
from cluster.session.models import check_strategies
from cluster.session.session import Services
from cluster.sweep.config import SweepConfig
from cluster.sweep.space import Params
from cluster.sweep.trial import Population
from gpo.data.task import fingerprint, function_digests
from gpo.errors import GPOError
from gpo.runtime.concurrency import gather

WINNER, PAPER = "the best trial", "the paper's setting"
_RESAMPLES = 9999


@dataclass(frozen=True, slots=True)
class Difference:
    """A paired difference of means, in [-1, 1].

    Attributes:
        num_pairs: tasks times seeds.
        mean: first minus second.
        low, high: confidence interval by the t distribution; both equal the mean where there is a single pair.
        p: two-sided p-value of a sign-flip permutation test: exact for few pairs, sampled for many. It is at least
            2 / 2**num_pairs.
        alpha: the significance level.
    """

    num_pairs: int
    mean: float
    low: float
    high: float
    p: float
    alpha: float

    @property
    def is_significant(self) -> bool:
        """Whether ``p`` is below ``alpha``."""
        return self.p < self.alpha

    def statement(self, first: str, second: str) -> str:
        """The difference in a sentence."""
        figures = (
            f"{100 * self.mean:+.1f} points, {100 * (1 - self.alpha):g} % interval {100 * self.low:+.1f} to "
            f"{100 * self.high:+.1f}, p = {self.p:.2g}, paired over {self.num_pairs} tasks and seeds"
        )
        if self.is_significant:
            which, other = (first, second) if self.mean > 0 else (second, first)
            return f"On held-out tasks, {which} is better than {other} ({figures})."
        floor = 2 / 2**self.num_pairs
        few = f" So few pairs cannot be significant: p is at least {floor:.2g}." if floor >= self.alpha else ""
        return f"On held-out tasks, there is no significant difference between {first} and {second} ({figures}).{few}"


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The result of a confirmation.

    Attributes:
        trial: the best trial's number.
        params: ``best`` and ``paper`` → its setting; both are the same where the paper's setting won.
        scores: ``best`` and ``paper`` → ``task/seed`` → the best prompt's mean on ``test``, in [0, 1].
        difference: best minus paper; ``None`` where both are the same setting.
    """

    trial: int
    params: Mapping[str, Params]
    scores: Mapping[str, Mapping[str, float]]
    difference: Difference | None

    @property
    def statement(self) -> str:
        """The result in a sentence or two."""
        if self.difference is None:
            return "The paper's setting is the best trial; there is nothing to confirm."
        return self.difference.statement(WINNER, PAPER)


def confirmation_key(config: SweepConfig, params: Params) -> str:
    """A digest of everything that the confirmation of a setting depends on."""
    assert config.section.holdout is not None  # noqa: S101  # else, nothing to do
    return _digest(
        [_holdout_digest(config, params), _holdout_digest(config, config.space.paper), config.section.holdout.alpha]
    )


def _holdout_digest(config: SweepConfig, params: Params) -> str:
    """A digest of one setting on the held-out tasks; its folder is named by it, so that each winner has its own."""
    assert config.holdout is not None  # noqa: S101
    functions = [digests for task in config.holdout_tasks if (digests := function_digests(task))]
    tasks = [[lasting(task) for task in config.holdout.tasks], *map(fingerprint, config.holdout_tasks), *functions]
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
    notify: Callable[[str, int, int], None],
) -> Confirmation:
    """Run both settings on the held-out tasks, side by side; a setting that ran before costs nothing.

    Args:
        folder: holds a folder for each of them.
        notify: receives the setting's name, its steps so far and all its steps.

    Raises:
        GPOError: a population failed.
    """
    assert config.holdout is not None and config.section.holdout is not None  # noqa: S101, PT018  # else, nothing to do
    settings = {"best": params, "paper": config.space.paper}
    if settings["best"] == settings["paper"]:
        return Confirmation(trial, settings, {}, None)
    best, paper = await gather(
        _test_scores(
            name, setting, config, folder / f"{name}-{_holdout_digest(config, setting)}", services, pool, notify
        )
        for name, setting in settings.items()
    )
    difference = paired_difference(
        list(best.values()), [paper[key] for key in best], alpha=config.section.holdout.alpha
    )
    return Confirmation(trial, settings, {"best": best, "paper": paper}, difference)


async def _test_scores(
    name: str,
    params: Params,
    config: SweepConfig,
    folder: Folder,
    services: Services,
    pool: ActorPool,
    notify: Callable[[str, int, int], None],
) -> dict[str, float]:
    holdout = config.holdout
    assert holdout is not None  # noqa: S101  # as above
    space = replace(config.space, base=holdout)
    tuned = space.config(params).model_copy(update={"tasks": holdout.tasks, "run": holdout.run})
    check_strategies(tuned, config.holdout_tasks)
    async with leased_folder(folder) as leased:
        population = Population(tuned, config.holdout_tasks, leased, name=f"{config.study}-{name}", is_tested=True)
        notify(name, population.steps, population.num_steps)
        async for step in population.run(services, pool):
            notify(name, step, population.num_steps)
        record = population.record
        if record.errors:
            key, error = next(iter(record.errors.items()))
            raise GPOError(f"the confirmation of {name} failed: {key}: {error}")
        population.save("completed")
    ends = {str(key): record.checkpoints[key] for key in record.keys}
    return {name: end.test[end.trajectory.best.prompt.id].score.mean for name, end in ends.items()}


def confirmation_document(confirmation: Confirmation, key: str) -> dict[str, Any]:
    """The part of ``sweep.json`` on the confirmation; ``key`` is its ``confirmation_key``."""
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


def paired_difference(first: Sequence[float], second: Sequence[float], *, alpha: float) -> Difference:
    """The difference of two sequences of scores in the same order; at least one pair."""
    import numpy as np  # with scipy, takes a second to load, which a sweep needs only at its end
    from scipy import stats

    differences = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    count, mean = len(differences), fmean(differences.tolist())
    half = 0.0
    if count > 1:
        half = float(stats.t.ppf(1 - alpha / 2, count - 1)) * stdev(differences.tolist()) / sqrt(count)
    p = 1.0
    if np.any(differences != 0):
        test = (
            stats.permutation_test(
                (differences,),
                np.mean,
                permutation_type="samples",
                n_resamples=_RESAMPLES,
                alternative="two-sided",
                rng=np.random.default_rng(0),
                vectorized=True,
            )
            if count > 1
            else None
        )
        p = float(test.pvalue) if test is not None and isfinite(test.pvalue) else 1.0
    return Difference(count, mean, mean - half, mean + half, min(1.0, p), alpha)
