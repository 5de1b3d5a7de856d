"""Means over tasks and seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from math import nan, sqrt
from statistics import fmean, stdev
from typing import Any

from actors.search import SearchKey
from cluster.results.intervals import interval_document
from gpo.checkpoint import Checkpoint
from gpo.data.task import Task
from gpo.intervals import Part, interval_of_mean
from gpo.score import Score

ALL = "all tasks"


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean over seeds, with its standard error.

    Attributes:
        by_seed: seed → value in [0, 1]; at least one.
        parts: the values of each task's examples, averaged over the seeds, with the task's weight in the mean and the
            standard error over the seeds; empty if unknown.
    """

    by_seed: Mapping[int, float]
    parts: Sequence[Part] = ()

    @property
    def mean(self) -> float:
        """In [0, 1]."""
        return fmean(self.by_seed.values())

    @property
    def stderr(self) -> float | None:
        """Standard error of the mean, from the sample standard deviation over seeds; ``None`` for a single seed."""
        values = list(self.by_seed.values())
        return stdev(values) / sqrt(len(values)) if len(values) > 1 else None

    @property
    def interval(self) -> tuple[float, float]:
        """The interval for the mean on new examples and with new seeds; (NaN, NaN) if ``parts`` are unknown.

        With a single seed, the seed is taken as given. With several, variance that is specific to a seed and an example
        counts twice, so the interval is slightly too wide.
        """
        return interval_of_mean(self.parts) if self.parts else (nan, nan)


@dataclass(frozen=True, slots=True)
class Family:
    """Tasks that are averaged together.

    Attributes:
        name: shown in tables.
        units: tasks that count as one (such as the three sizes of BBH's logical deduction) are averaged first.
    """

    name: str
    units: tuple[tuple[str, ...], ...]

    def mean(self, of_task: Mapping[str, float]) -> float | None:
        """The mean over the units; ``None`` where a task has no value: a mean over the rest would not compare."""
        if any(task not in of_task for unit in self.units for task in unit):
            return None
        return fmean(fmean(of_task[task] for task in unit) for unit in self.units)

    @property
    def weights(self) -> dict[str, float]:
        """Task → its weight in the mean."""
        return {task: 1 / len(self.units) / len(unit) for unit in self.units for task in unit}


def families_of(tasks: Iterable[Task]) -> tuple[Family, ...]:
    """The tasks' families, in the order of their first tasks; the last one is all tasks."""
    groups: dict[str, dict[str, list[str]]] = {}
    for task in tasks:
        for group in (task.group, ALL):
            groups.setdefault(group, {}).setdefault(task.counts_as or task.name, []).append(task.name)
    everything = groups.pop(ALL, {})
    named = {group: units for group, units in groups.items() if group}
    if len(named) == 1 and len(groups) == 1:
        named = {}  # a single family equals all tasks
    return tuple(
        Family(name, tuple(tuple(unit) for unit in units.values()))
        for name, units in {**named, ALL: everything}.items()
    )


Ends = Mapping[SearchKey, Checkpoint]


def _score(checkpoint: Checkpoint, which: str, split: str) -> Score | None:
    candidate = checkpoint.trajectory.initial if which == "initial" else checkpoint.trajectory.best
    if split == "val":
        return candidate.score
    evaluation = checkpoint.test.get(candidate.prompt.id)
    return evaluation.score if evaluation else None


def family_spread(family: Family, ends: Ends, *, which: str, split: str) -> Spread | None:
    """The family's mean over its tasks, for each seed that has a score on all of them.

    Args:
        ends: the checkpoints of the trajectories.
        which: the prompt, ``initial`` or ``best``.
        split: ``val`` or ``test``.
    """
    of_seed: dict[int, dict[str, Score]] = {}
    for key, checkpoint in ends.items():
        score = _score(checkpoint, which, split)
        if score is not None:
            of_seed.setdefault(key.seed, {})[key.task] = score
    means = {
        seed: family.mean({task: score.mean for task, score in of_task.items()})
        for seed, of_task in sorted(of_seed.items())
    }
    known = {seed: mean for seed, mean in means.items() if mean is not None}
    if not known:
        return None
    parts = [_part([of_seed[seed][task] for seed in known], weight) for task, weight in family.weights.items()]
    # The plain means of chosen examples are not those of all examples.
    is_estimated = any(of_seed[seed][task].partial for seed in known for task in family.weights)
    return Spread(known, parts if not is_estimated and all(part.values for part in parts) else ())


def _part(scores: Sequence[Score], weight: float) -> Part:
    """A task's part of a mean, from its scores with each seed. A value is the mean over the seeds that have it."""
    examples = zip_longest(*(score.values_E for score in scores))
    known = [[value for value in values if value is not None] for values in examples]
    seeds = Spread(dict(enumerate(score.mean for score in scores if score.scored)))
    degrees = max(1, len(seeds.by_seed) - 1)
    return Part([fmean(values) for values in known if values], weight, seeds.stderr or 0.0, degrees)


def alone(task: str) -> Family:
    """A family of a single task."""
    return Family(task, ((task,),))


def mean_scores(family: Family, ends: Ends) -> dict[str, dict[str, dict[str, Any] | None]]:
    """``initial`` and ``best`` → ``val`` and ``test`` → ``mean``, ``stderr``, ``interval`` and ``by_seed``.

    A seed counts only when all tasks have a score for it; the innermost value is null while no seed does. ``stderr`` is
    over seeds, and null for a single one. ``interval`` is for the mean on new examples and with new seeds.
    """
    return {
        which: {split: _rounded(family_spread(family, ends, which=which, split=split)) for split in ("val", "test")}
        for which in ("initial", "best")
    }


def averages(families: Sequence[Family], ends: Ends) -> list[dict[str, Any]]:
    """One entry per family, and a last one for all tasks; empty for a single task."""
    if not families or sum(len(unit) for unit in families[-1].units) < 2:
        return []
    return [{"family": family.name, "tasks": len(family.units), **mean_scores(family, ends)} for family in families]


def _rounded(known: Spread | None) -> dict[str, Any] | None:
    if known is None:
        return None
    return {
        "mean": round(known.mean, 4),
        "stderr": None if known.stderr is None else round(known.stderr, 4),
        "interval": interval_document(known.interval),
        "by_seed": {str(seed): round(value, 4) for seed, value in known.by_seed.items()},
    }
