"""Which prompt becomes the current one after a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev
from typing import Protocol

from gpo.score import Score
from gpo.trajectory import Candidate, Trajectory, best_of


class Acceptance(Protocol):
    """Chooses the prompt from which the search continues."""

    def choose(self, trajectory: Trajectory, candidates: Sequence[Candidate]) -> Candidate:
        """The next current prompt: a candidate of the step, the current prompt, or an earlier one.

        Args:
            candidates: prompts not scored before in this trajectory. A dropped one is never chosen. If empty, the
                current prompt stays.
        """
        ...


@dataclass(frozen=True, slots=True)
class BestOfStep:
    """Always move to the best new candidate (the first of equals), even if it is worse. Policy of the reference runs.

    Since all candidates are new, the search never returns to an earlier prompt.
    """

    def choose(self, trajectory: Trajectory, candidates: Sequence[Candidate]) -> Candidate:
        return best_of(candidates) or trajectory.current


@dataclass(frozen=True, slots=True)
class WithinError:
    """Move to the best new candidate; if it is significantly worse than the best prompt so far, return to that one.

    A compromise between the other two: noise of a small ``val`` split does not stop the search, and a step that made
    the prompt worse is undone. The comparison uses the standard error of the mean paired difference on the examples
    that are scored for both prompts.

    Args:
        standard_errors: by how many standard errors a candidate may be worse, ≥ 0.
    """

    standard_errors: float = 1.0

    def choose(self, trajectory: Trajectory, candidates: Sequence[Candidate]) -> Candidate:
        candidate, best = best_of(candidates), trajectory.best
        if candidate is None:
            return trajectory.current
        differences = paired_differences(candidate.score, best.score)
        if len(differences) < 2:
            return candidate
        stderr = stdev(differences) / sqrt(len(differences))
        return best if fmean(differences) < -self.standard_errors * stderr else candidate


@dataclass(frozen=True, slots=True)
class StrictImprovement:
    """Move to the best new candidate only if its mean score exceeds that of the current prompt."""

    def choose(self, trajectory: Trajectory, candidates: Sequence[Candidate]) -> Candidate:
        candidate, current = best_of(candidates), trajectory.current
        return candidate if candidate is not None and candidate.score.mean > current.score.mean else current


@dataclass(frozen=True, slots=True)
class BestSoFar:
    """Always continue from the best prompt of the search, by ``best_of``; the earliest one of equals.

    Meant for adaptive scoring: a prompt whose estimate rests on few examples must lead by one standard error.
    """

    def choose(self, trajectory: Trajectory, candidates: Sequence[Candidate]) -> Candidate:
        return best_of((*trajectory.history, *candidates)) or trajectory.current


def paired_differences(new: Score, old: Score) -> list[float]:
    """The differences of two prompts' values, on the examples that are scored for both."""
    pairs = zip(new.values_E, old.values_E, strict=True)
    return [one - other for one, other in pairs if one is not None and other is not None]
