"""Which trials count as good: the best one, and the front where objectives conflict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from statistics import fmean, stdev

from optuna.trial import FrozenTrial, TrialState


def completed(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Those that ran to their end."""
    return [trial for trial in trials if trial.state is TrialState.COMPLETE and trial.values]


def best_trial(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The trial with the highest ``val``, of those that ran to their end; of equals the cheapest, then the first."""
    return min(completed(trials), key=lambda trial: (-trial.values[0], *trial.values[1:], trial.number), default=None)


def pareto_front(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that no other beats in one objective without being worse in another, best ``val`` first."""
    known = completed(trials)

    def losses(trial: FrozenTrial) -> tuple[float, ...]:
        return (-trial.values[0], *trial.values[1:])

    def is_dominated(trial: FrozenTrial) -> bool:
        mine = losses(trial)
        return any(
            losses(other) != mine and all(one <= two for one, two in zip(losses(other), mine, strict=True))
            for other in known
        )

    return sorted((trial for trial in known if not is_dominated(trial)), key=losses)


_RESAMPLES = 9999


@dataclass(frozen=True, slots=True)
class Difference:
    """A paired difference of means, in [-1, 1].

    Attributes:
        num_pairs: tasks times seeds.
        mean: of first less second.
        low, high: bounds of a confidence interval by the t distribution; equal to the mean where there is one pair.
        p: two-sided, of the hypothesis that neither is better, by flipping the signs of the differences: exact where
            there are few pairs, and else drawn. It cannot fall below 2 / 2**num_pairs.
        alpha: the level that was asked for.
    """

    num_pairs: int
    mean: float
    low: float
    high: float
    p: float
    alpha: float

    @property
    def is_significant(self) -> bool:
        """Whether chance explains it badly enough."""
        return self.p < self.alpha

    def statement(self, first: str, second: str) -> str:
        """What it says, in a sentence."""
        figures = (
            f"{100 * self.mean:+.1f} points, {100 * (1 - self.alpha):g} % interval {100 * self.low:+.1f} to "
            f"{100 * self.high:+.1f}, p = {self.p:.2g}, paired over {self.num_pairs} tasks and seeds"
        )
        if self.is_significant:
            which, other = (first, second) if self.mean > 0 else (second, first)
            return f"On held-out tasks, {which} is better than {other} ({figures})."
        floor = 2 / 2**self.num_pairs
        few = f" So few pairs cannot tell: p is at least {floor:.2g} whatever they say." if floor >= self.alpha else ""
        return f"On held-out tasks, {first} cannot be told apart from {second} ({figures}).{few}"


def paired_difference(first: Sequence[float], second: Sequence[float], *, alpha: float) -> Difference:
    """How much better the first is; both in the same order, at least one pair."""
    import numpy as np  # it and scipy take a second to load, at the end of a sweep rather than at its beginning
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
