"""Means over tasks and seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev
from typing import Any

from actors.search import SearchKey
from gpo.checkpoint import Checkpoint
from gpo.data.task import Task

ALL = "all tasks"


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean over seeds, with its standard error.

    Attributes:
        by_seed: seed → value in [0, 1]; at least one.
    """

    by_seed: Mapping[int, float]

    @property
    def mean(self) -> float:
        """In [0, 1]."""
        return fmean(self.by_seed.values())

    @property
    def stderr(self) -> float | None:
        """Standard error of the mean, from the sample standard deviation over seeds; ``None`` for a single seed."""
        values = list(self.by_seed.values())
        return stdev(values) / sqrt(len(values)) if len(values) > 1 else None


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


def _score(checkpoint: Checkpoint, which: str, split: str) -> float | None:
    candidate = checkpoint.trajectory.initial if which == "initial" else checkpoint.trajectory.best
    if split == "val":
        return candidate.score.mean
    evaluation = checkpoint.test.get(candidate.prompt.id)
    return evaluation.score.mean if evaluation else None


def family_spread(family: Family, ends: Ends, *, which: str, split: str) -> Spread | None:
    """The family's mean over its tasks, for each seed that has a score on all of them.

    Args:
        ends: the checkpoints of the trajectories.
        which: the prompt, ``initial`` or ``best``.
        split: ``val`` or ``test``.
    """
    of_seed: dict[int, dict[str, float]] = {}
    for key, checkpoint in ends.items():
        score = _score(checkpoint, which, split)
        if score is not None:
            of_seed.setdefault(key.seed, {})[key.task] = score
    means = {seed: family.mean(of_task) for seed, of_task in sorted(of_seed.items())}
    known = {seed: mean for seed, mean in means.items() if mean is not None}
    return Spread(known) if known else None


def alone(task: str) -> Family:
    """A family of a single task."""
    return Family(task, ((task,),))


def mean_scores(family: Family, ends: Ends) -> dict[str, dict[str, dict[str, Any] | None]]:
    """``initial`` and ``best`` → ``val`` and ``test`` → ``mean``, ``stderr`` and ``by_seed``, as in the files.

    A seed counts only when all tasks have a score for it; the innermost value is null while no seed does. ``stderr`` is
    over seeds, and null for a single one.
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
        "by_seed": {str(seed): round(value, 4) for seed, value in known.by_seed.items()},
    }
