"""When a search ends before it has taken all its steps."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev

from gpo.intervals import interval
from gpo.score import Score
from gpo.strategies.acceptance import paired_differences
from gpo.trajectory import Trajectory, best_of

_ROUNDING = 1 + 1e-9
"""One more right answer is an improvement by exactly one standard error, which must not count for any number of
examples."""


@dataclass(frozen=True, slots=True)
class StoppingRule:
    """Ends a search at a target, or when it makes no more progress.

    The decision depends on the trajectory alone, so a search that is resumed stops after the same step.

    Attributes:
        target: ``val`` score in (0, 1) that the best prompt must reach: the lower end of its 90 % interval is at least
            the target. The interval does not allow for the choice of the best prompt. ``None`` for no target.
        patience: steps in a row without an improvement, ≥ 1. A step of first prompts is not counted. Only an
            improvement by more than one standard error of the mean paired difference, or of the estimate, counts. The
            best prompt is compared with the best prompt at the last improvement, so that many small improvements count
            together. ``None`` never loses patience.
    """

    target: float | None = None
    patience: int | None = None

    def reason(self, trajectory: Trajectory) -> str | None:
        """Why the search is over, in words; ``None`` if it continues."""
        if self.target is not None and interval(trajectory.best.score)[0] >= self.target:
            return f"reached the target {self.target:g}"
        if self.patience is not None and steps_without_improvement(trajectory) >= self.patience:
            return f"no improvement in {self.patience} step{'s' if self.patience > 1 else ''}"
        return None


def steps_without_improvement(trajectory: Trajectory) -> int:
    """Steps since the best prompt last improved by more than one standard error."""
    best = reference = trajectory.initial
    count = 0
    for step in trajectory.steps:
        best = best_of((best, *step.candidates)) or best
        if _is_better(best.score, reference.score):
            reference, count = best, 0
        elif not step.has_first_prompts:
            count += 1
    return count


def _is_better(new: Score, old: Score) -> bool:
    """Whether the mean paired difference exceeds its standard error; without two pairs, whether the mean is higher.

    The mean of a prompt that answered some examples only must exceed the other by the standard error of its estimate.
    """
    if new.partial is not None:
        return new.lower > old.mean
    differences = paired_differences(new, old)
    if len(differences) < 2:
        return new.mean > old.mean
    return fmean(differences) > _ROUNDING * stdev(differences) / sqrt(len(differences))
