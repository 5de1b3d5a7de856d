"""What happens in a run, for the ``on_event`` of a program."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gpo.score import Score
from gpo.trajectory import Candidate, Trajectory


@dataclass(frozen=True, slots=True)
class CandidateScored:
    """A prompt has its score.

    Attributes:
        step: the step that it was proposed in, from 1; 0 for the initial prompt.
        score: on ``val``; ``score.mean`` is in [0, 1].
        edit_distance: words by which it differs from the prompt that it was made from.
        is_dropped: whether it lost a race before it was scored on every example.
    """

    task: str
    seed: int
    step: int
    prompt: str
    score: Score
    edit_distance: int = 0
    is_dropped: bool = False


@dataclass(frozen=True, slots=True)
class StepTaken:
    """A search has taken a step.

    Attributes:
        step: how many steps it has taken, ≥ 1.
        step_size: words that the step might change; ``None`` if they were not bounded.
        current: the prompt that the next step changes, with its ``val`` score.
        best: the best prompt so far, likewise.
    """

    task: str
    seed: int
    step: int
    step_size: int | None
    current: Candidate
    best: Candidate


@dataclass(frozen=True, slots=True)
class RunEnded:
    """A run has ended, and its results are saved.

    Attributes:
        status: ``completed``, ``interrupted``, ``budget_exhausted`` or ``failed``.
        run_dir: path or URL of its folder.
    """

    run_id: str
    status: str
    run_dir: str


Event = CandidateScored | StepTaken | RunEnded
OnEvent = Callable[[Event], object]


def new_events(task: str, seed: int, trajectory: Trajectory, known_steps: int | None) -> Iterator[Event]:
    """The events since a search had taken ``known_steps`` steps; ``None`` if its initial prompt had no score."""

    def scored(candidate: Candidate, step: int) -> CandidateScored:
        text, dropped = candidate.prompt.text, candidate.is_dropped
        return CandidateScored(task, seed, step, text, candidate.score, candidate.edit_distance, dropped)

    if known_steps is None:
        yield scored(trajectory.initial, 0)
    for number, step in enumerate(trajectory.steps[known_steps or 0 :], start=(known_steps or 0) + 1):
        for candidate in step.candidates:
            yield scored(candidate, number)
        yield StepTaken(task, seed, number, step.step_size, step.successor, trajectory.best)
