"""Who becomes the current prompt after a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gpo.trajectory import Candidate, Trajectory


class Acceptance(Protocol):
    """Chooses where the search goes on."""

    def choose(self, trajectory: Trajectory, candidates: Sequence[Candidate]) -> Candidate:
        """The next current prompt: one of the step's candidates, or the one that is current.

        ``candidates`` were not scored before in this trajectory; may be empty, and then the current prompt stays.
        """
        ...


def _best(candidates: Sequence[Candidate]) -> Candidate:
    return max(candidates, key=lambda candidate: candidate.score.mean)


@dataclass(frozen=True, slots=True)
class BestOfStep:
    """Always move to the best new candidate, even downhill; the first of equals. The reference runs' policy.

    Since candidates are unseen, the search never returns to a prompt that was current before.
    """

    def choose(self, trajectory: Trajectory, candidates: Sequence[Candidate]) -> Candidate:
        return _best(candidates) if candidates else trajectory.current


@dataclass(frozen=True, slots=True)
class StrictImprovement:
    """Move to the best new candidate only where its mean exceeds the current one's."""

    def choose(self, trajectory: Trajectory, candidates: Sequence[Candidate]) -> Candidate:
        current = trajectory.current
        return _best(candidates) if candidates and _best(candidates).score.mean > current.score.mean else current
