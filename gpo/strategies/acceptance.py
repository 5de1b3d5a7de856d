"""Who becomes the current prompt after a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev
from typing import Protocol

from gpo.trajectory import Candidate, Trajectory, best_of


class Acceptance(Protocol):
    """Chooses where the search goes on."""

    def choose(self, trajectory: Trajectory, candidates: Sequence[Candidate]) -> Candidate:
        """The next current prompt: one of the step's candidates, the one that is current, or an earlier one.

        ``candidates`` were not scored before in this trajectory; a dropped one is never chosen. They may be empty, and
        then the current prompt stays.
        """
        ...


@dataclass(frozen=True, slots=True)
class BestOfStep:
    """Always move to the best new candidate, even downhill; the first of equals. The reference runs' policy.

    Since candidates are unseen, the search never returns to a prompt that was current before.
    """

    def choose(self, trajectory: Trajectory, candidates: Sequence[Candidate]) -> Candidate:
        return best_of(candidates) or trajectory.current


@dataclass(frozen=True, slots=True)
class WithinError:
    """Move to the best new candidate, unless it is measurably worse than the best so far; then go back to that one.

    Between the other two: differences within the noise of a small ``val`` split do not hold the search up, and a step
    that really led downhill is undone. Measured on the examples that both prompts have a verdict on, by the standard
    error of the mean of the paired differences.

    Args:
        standard_errors: how many of these a candidate may lie below, ≥ 0.
    """

    standard_errors: float = 1.0

    def choose(self, trajectory: Trajectory, candidates: Sequence[Candidate]) -> Candidate:
        candidate, best = best_of(candidates), trajectory.best
        if candidate is None:
            return trajectory.current
        pairs = zip(candidate.score.values_E, best.score.values_E, strict=True)
        differences = [new - old for new, old in pairs if new is not None and old is not None]
        if len(differences) < 2:
            return candidate
        stderr = stdev(differences) / sqrt(len(differences))
        return best if fmean(differences) < -self.standard_errors * stderr else candidate


@dataclass(frozen=True, slots=True)
class StrictImprovement:
    """Move to the best new candidate only where its mean exceeds the current one's."""

    def choose(self, trajectory: Trajectory, candidates: Sequence[Candidate]) -> Candidate:
        candidate, current = best_of(candidates), trajectory.current
        return candidate if candidate is not None and candidate.score.mean > current.score.mean else current
