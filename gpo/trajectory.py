"""The state of one search, as a value: what was tried, in order, and what it scored.

A ``Trajectory`` never changes; an update makes a new one. Whoever holds it can save, resume, plot or compare it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property

from gpo.models import Usage
from gpo.prompt import Prompt
from gpo.score import Score


@dataclass(frozen=True, slots=True)
class Candidate:
    """A scored prompt.

    ``edit_distance`` is the measured number of words by which it differs from the prompt it was made from; 0 for the
    initial prompt. ``score`` is on the ``val`` split.
    """

    prompt: Prompt
    score: Score
    edit_distance: int = 0


@dataclass(frozen=True, slots=True)
class Spending:
    """What calls cost, by the role of the model that was called."""

    task: Usage = field(default_factory=Usage)
    optimizer: Usage = field(default_factory=Usage)
    judge: Usage = field(default_factory=Usage)

    def __add__(self, other: Spending) -> Spending:
        return Spending(self.task + other.task, self.optimizer + other.optimizer, self.judge + other.judge)


@dataclass(frozen=True, slots=True)
class Proposal:
    """New prompts, bought from the optimizer model and not yet evaluated.

    Attributes:
        step_size: words that may change; ``None`` is no bound.
        neighbours: the scored prompts that gave the update direction.
        prompts: unseen and distinct; may be empty.
        num_malformed: replies in which no prompt was found.
        spending: what the proposal cost.
        num_rejected: prompts beyond an enforced step size that were sampled anew or given up.
    """

    step_size: int | None
    neighbours: tuple[Candidate, ...]
    prompts: tuple[Prompt, ...]
    num_malformed: int
    spending: Spending
    num_rejected: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """One update.

    Attributes:
        index: 0 for the first.
        step_size, neighbours, num_malformed, num_rejected: as in ``Proposal``.
        candidates: the proposal's prompts, scored, in order; may be empty.
        successor: the current prompt after the step.
        spending: what proposing and evaluating cost.
    """

    index: int
    step_size: int | None
    neighbours: tuple[Candidate, ...]
    candidates: tuple[Candidate, ...]
    successor: Candidate
    num_malformed: int
    spending: Spending
    num_rejected: int = 0


@dataclass(frozen=True)
class Trajectory:
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
        """The candidate with the highest mean; the earliest of equals."""
        return max(self.history, key=lambda candidate: candidate.score.mean)

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
