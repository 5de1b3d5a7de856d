"""The state of one search, as a value: what was tried, in order, and what it scored.

A ``Trajectory`` never changes; an update makes a new one. Whoever holds it can save, resume, plot or compare it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property

from gpo.models.protocol import Usage
from gpo.process import PicklesFieldsOnly
from gpo.prompt import Prompt
from gpo.score import Score


@dataclass(frozen=True, slots=True)
class Candidate:
    """A scored prompt.

    ``edit_distance`` is the measured number of words by which it differs from the prompt it was made from; 0 for the
    initial prompt. ``score`` is on the ``val`` split; it is partial where the candidate was dropped on the way.
    """

    prompt: Prompt
    score: Score
    edit_distance: int = 0

    @property
    def is_dropped(self) -> bool:
        """Whether it was given up before it had answered every example; it is never chosen then."""
        return self.score.partial is not None


def best_of(candidates: Iterable[Candidate]) -> Candidate | None:
    """The candidate with the highest mean, of those that were not dropped; the first of equals."""
    complete = [candidate for candidate in candidates if not candidate.is_dropped]
    return max(complete, key=lambda candidate: candidate.score.mean, default=None)


@dataclass(frozen=True, slots=True)
class Spending:
    """What calls cost, by the role of the model that was called."""

    task: Usage = field(default_factory=Usage)
    optimizer: Usage = field(default_factory=Usage)
    judge: Usage = field(default_factory=Usage)

    def __add__(self, other: Spending) -> Spending:
        return Spending(self.task + other.task, self.optimizer + other.optimizer, self.judge + other.judge)


@dataclass(frozen=True, slots=True)
class Direction:
    """The update direction: what the search so far tells the optimizer model.

    Attributes:
        neighbours: past prompts with their scores, most relevant last.
        neighbour_reflections: the reflection on each of them, in their order; ``None`` for one that never was current.
        reflection: why the current prompt fails on train examples, in the optimizer model's words; ``None`` without.
        summary: what the steps so far have taught, likewise.
    """

    neighbours: tuple[Candidate, ...] = ()
    neighbour_reflections: tuple[str | None, ...] = ()
    reflection: str | None = None
    summary: str | None = None


@dataclass(frozen=True, slots=True)
class Samples:
    """What became of the replies that a step bought for new prompts; every reply is one of the four, or a candidate.

    Attributes:
        num_malformed: held no prompt.
        num_rejected: held a prompt beyond an enforced step size.
        num_repeated: held a prompt that was scored before, or that another reply of the step held.
        num_failed: never came: their calls were given up.
    """

    num_malformed: int = 0
    num_rejected: int = 0
    num_repeated: int = 0
    num_failed: int = 0


@dataclass(frozen=True, slots=True)
class Proposal:
    """New prompts, bought from the optimizer model and not yet evaluated.

    Attributes:
        step_size: words that may change; ``None`` is no bound.
        direction: what the prompts were made from.
        prompts: unseen and distinct; may be empty.
        samples: what became of the other replies.
        spending: what the proposal cost.
    """

    step_size: int | None
    direction: Direction
    prompts: tuple[Prompt, ...]
    samples: Samples
    spending: Spending


@dataclass(frozen=True, slots=True)
class Step:
    """One update.

    Attributes:
        index: 0 for the first.
        step_size, direction, samples: as in ``Proposal``.
        candidates: the proposal's prompts, scored, in order; may be empty.
        successor: the current prompt after the step.
        spending: what proposing and evaluating cost.
    """

    index: int
    step_size: int | None
    direction: Direction
    candidates: tuple[Candidate, ...]
    successor: Candidate
    samples: Samples
    spending: Spending


@dataclass(frozen=True)
class Trajectory(PicklesFieldsOnly):
    """One search from an initial prompt.

    ``proposal`` is the update under way: its prompts are paid for, their scores are not known yet. Saved with the
    trajectory, it lets a resumed search go on without buying them again.
    """

    initial: Candidate
    steps: tuple[Step, ...] = ()
    proposal: Proposal | None = None
    initial_spending: Spending = field(default_factory=Spending)

    @property
    def current(self) -> Candidate:
        """The prompt that the next step starts from."""
        return self.steps[-1].successor if self.steps else self.initial

    @cached_property
    def history(self) -> tuple[Candidate, ...]:
        """Every scored prompt, oldest first, the initial one included; no prompt stands in it twice."""
        return (self.initial, *(candidate for step in self.steps for candidate in step.candidates))

    @cached_property
    def best(self) -> Candidate:
        """The candidate with the highest mean, of those that were not dropped; the earliest of equals."""
        return best_of(self.history) or self.initial

    @cached_property
    def reflections(self) -> dict[Prompt, str]:
        """Every prompt that was current and reflected on, with the last reflection on it."""
        currents = (self.initial, *(step.successor for step in self.steps))
        return {
            current.prompt: step.direction.reflection
            for current, step in zip(currents, self.steps, strict=False)
            if step.direction.reflection is not None
        }

    @property
    def spending(self) -> Spending:
        """What the search cost so far, the update under way included."""
        steps = sum((step.spending for step in self.steps), start=self.initial_spending)
        return steps + self.proposal.spending if self.proposal else steps

    def unseen(self, prompts: Iterable[Prompt]) -> tuple[Prompt, ...]:
        """The prompts that were never scored in this search, each once, in order."""
        seen = {candidate.prompt for candidate in self.history}
        return tuple(prompt for prompt in dict.fromkeys(prompts) if prompt not in seen)

    def begin(self, proposal: Proposal) -> Trajectory:
        """The trajectory with a proposal that waits for its scores."""
        if self.proposal is not None:
            raise ValueError("an update is under way already")
        return replace(self, proposal=proposal)

    def append(self, step: Step) -> Trajectory:
        """The trajectory after a step."""
        if step.index != len(self.steps):
            raise ValueError(f"step {step.index} does not follow {len(self.steps)} steps")
        return replace(self, steps=(*self.steps, step), proposal=None)
