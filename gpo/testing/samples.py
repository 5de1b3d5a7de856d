"""Small trajectories for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpo.models.protocol import Usage
from gpo.prompt import Prompt
from gpo.score import Partial, Score
from gpo.trajectory import Candidate, Direction, Samples, Spending, Step, Trajectory, best_of


def candidate(text: str, *values: float | None) -> Candidate:
    """A prompt with one verdict per example; by default a single verdict of 0.5."""
    return Candidate(Prompt(text), Score(values or (0.5,)))


def dropped(text: str, mean: float) -> Candidate:
    """A prompt that was dropped before it was scored on its only example."""
    return Candidate(Prompt(text), Score((None,), Partial(num_left_out=1, mean=mean)))


def trajectory(initial: Candidate, *steps: Sequence[Candidate]) -> Trajectory:
    """A trajectory whose steps scored these candidates and moved to the best one."""
    search = Trajectory(initial)
    for candidates in steps:
        successor = best_of(candidates) or search.current
        spending = Spending(task=Usage(requests=len(candidates)), optimizer=Usage(requests=1))
        search = search.append(
            Step(len(search.steps), 10, Direction(), tuple(candidates), successor, Samples(), spending)
        )
    return search


TRAJECTORIES: Mapping[str, Trajectory] = {
    "only the initial prompt": trajectory(candidate("Think step by step.", 0.5)),
    "one step": trajectory(
        candidate("Think step by step.", 0.5),
        [candidate("Think hard.", 0.2), candidate("Think slowly, step by step.", 0.9)],
    ),
    "an empty step": trajectory(candidate("Think step by step.", 0.5), []),
    "several steps, with ties": trajectory(
        candidate("Think step by step.", 0.5),
        [candidate("Think.", 0.5), candidate("Reason.", 0.5)],
        [candidate("Answer at once.", 0.0), candidate("Reason step by step.", 0.75)],
        [candidate("…", 0.25), candidate("Reason, step by step!", 0.75)],
    ),
    "candidates that were dropped": trajectory(
        candidate("Think step by step.", 0.5),
        [dropped("Think.", 1.0), candidate("Reason.", 0.75), dropped("Guess.", 0.0)],
        [dropped("…", 0.5)],
    ),
}
"""Name → trajectory: all shapes that strategies must handle."""
