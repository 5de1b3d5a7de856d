"""The state of one search: the candidates so far, in order, and their scores.

A ``Trajectory`` is immutable: each update creates a new one. It can be saved, resumed, plotted and compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from gpo.models.protocol import NO_USAGE, Usage
from gpo.prompt import Prompt
from gpo.runtime.process import PicklesFieldsOnly
from gpo.score import Score
from gpo.text import abridged

_MAX_CHARACTERS = 2000
"""Of each text of a failure, since it is saved in the checkpoint and shown in meta-prompts and reports."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A scored prompt.

    Attributes:
        score: on the ``val`` split; partial if the candidate answered some examples only.
        edit_distance: words by which it differs from the prompt it was made from; 0 for the initial prompt.
    """

    prompt: Prompt
    score: Score
    edit_distance: int = 0

    @property
    def is_dropped(self) -> bool:
        """Whether it lost a race before every example was scored. A dropped candidate is never chosen."""
        return self.score.partial is not None and self.score.partial.stderr is None


def best_of(candidates: Iterable[Candidate]) -> Candidate | None:
    """The candidate with the highest mean that was not dropped; the first one of equals.

    Where means are estimates, it is the one with the highest mean less one standard error.
    """
    comparable = [candidate for candidate in candidates if not candidate.is_dropped]
    return max(comparable, key=lambda candidate: candidate.score.lower, default=None)


@dataclass(frozen=True, slots=True)
class Spending:
    """What calls cost, by the role of the called model."""

    task: Usage = NO_USAGE
    optimizer: Usage = NO_USAGE
    judge: Usage = NO_USAGE

    def __add__(self, other: Spending) -> Spending:
        return Spending(self.task + other.task, self.optimizer + other.optimizer, self.judge + other.judge)


@dataclass(frozen=True, slots=True)
class Failure:
    """An answer of the task model that is not fully right. Of a longer text, 2,000 characters are kept (``abridged``).

    Attributes:
        input, target: of the ``train`` example.
        answer: what the task model answered with the current prompt; empty if it wrote nothing.
        reason: why the answer is not right; empty if unknown.
    """

    input: str
    target: str
    answer: str
    reason: str = ""

    @classmethod
    def abridged(cls, input: str, target: str, answer: str, reason: str = "") -> Failure:  # noqa: A002  # the field
        """The failure without the middle of each text that is too long."""
        return cls(*(abridged(text, _MAX_CHARACTERS) for text in (input, target, answer, reason)))


@dataclass(frozen=True, slots=True)
class OtherPart:
    """A further part of the prompt that a step rewrites, and the past prompts that are shown for it."""

    name: str
    neighbours: tuple[Candidate, ...] = ()
    neighbour_reflections: tuple[str | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Direction:
    """The update direction: what the optimizer model is shown of the search so far.

    Attributes:
        neighbours: past prompts with their scores, most relevant last.
        neighbour_reflections: the reflection on each neighbour, in the same order; ``None`` if it was never current.
        reflection: the optimizer model's text on why the current prompt fails on train examples, if asked for.
        summary: the optimizer model's text on what the steps so far show, if asked for.
        failures: answers to train examples that the current prompt got wrong, if asked for; the worst first. With a
            reflection, the failures that it is about.
        part: the part of the prompt that the step rewrites; empty for a prompt without parts.
        others: the parts that the step rewrites as well.
    """

    neighbours: tuple[Candidate, ...] = ()
    neighbour_reflections: tuple[str | None, ...] = ()
    reflection: str | None = None
    summary: str | None = None
    failures: tuple[Failure, ...] = ()
    part: str = ""
    others: tuple[OtherPart, ...] = ()

    @property
    def of_parts(self) -> tuple[Direction, ...]:
        """The direction for each part that the step rewrites; for a prompt without parts, the direction itself."""
        own = replace(self, others=())
        others = (
            replace(own, part=one.name, neighbours=one.neighbours, neighbour_reflections=one.neighbour_reflections)
            for one in self.others
        )
        return (own, *others)


@dataclass(frozen=True, slots=True)
class Samples:
    """Counts of the replies of a step that gave no candidate, by reason.

    Attributes:
        num_malformed: contained no prompt.
        num_rejected: contained a prompt that exceeds an enforced step size.
        num_repeated: contained a prompt that was scored before, or that is in another reply of the step.
        num_failed: calls that failed.
        broken: for each reply with a prompt that breaks a rule, the rule (``gpo/strategies/rules.py``).
    """

    num_malformed: int = 0
    num_rejected: int = 0
    num_repeated: int = 0
    num_failed: int = 0
    broken: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Proposal:
    """New prompts from the optimizer model, paid for and not yet evaluated.

    Attributes:
        step_size: words that may change; ``None`` for no bound.
        direction: what the prompts were made from.
        prompts: distinct and never scored before; may be empty.
        samples: counts of the other replies.
        spending: what the proposal cost.
        has_first_prompts: whether the prompts were given, or written from the goal of the task, and not made from the
            current prompt.
    """

    step_size: int | None
    direction: Direction
    prompts: tuple[Prompt, ...]
    samples: Samples
    spending: Spending
    has_first_prompts: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One update.

    Attributes:
        index: 0 for the first.
        step_size, direction, samples, has_first_prompts: as in ``Proposal``.
        candidates: the scored prompts of the proposal, in order; may be empty.
        successor: the current prompt after the step.
        spending: what proposing and evaluating cost.
        unscored: prompts of the proposal that could not be scored, in order.
    """

    index: int
    step_size: int | None
    direction: Direction
    candidates: tuple[Candidate, ...]
    successor: Candidate
    samples: Samples
    spending: Spending
    unscored: tuple[Prompt, ...] = ()
    has_first_prompts: bool = False


@dataclass(frozen=True)
class Trajectory(PicklesFieldsOnly):
    """One search from an initial prompt.

    ``proposal`` belongs to the current update: its prompts are paid for, but not scored yet. It is saved with the
    trajectory, so that a resumed search does not pay for the prompts again. ``confirmation_spending`` is the cost of
    scoring the best prompts on the rest of ``val`` at the end, with adaptive scoring.
    """

    initial: Candidate
    steps: tuple[Step, ...] = ()
    proposal: Proposal | None = None
    initial_spending: Spending = field(default_factory=Spending)
    confirmation_spending: Spending = field(default_factory=Spending)

    @property
    def current(self) -> Candidate:
        """The prompt that the next step starts from."""
        return self.steps[-1].successor if self.steps else self.initial

    @property
    def currents(self) -> tuple[Candidate, ...]:
        """The prompts that were current, one for each step and the last one; a prompt that stayed is there again."""
        return (self.initial, *(step.successor for step in self.steps))

    @cached_property
    def history(self) -> tuple[Candidate, ...]:
        """Every scored prompt once, oldest first, including the initial one."""
        return (self.initial, *(candidate for step in self.steps for candidate in step.candidates))

    @cached_property
    def best(self) -> Candidate:
        """The best candidate by ``best_of``; the earliest one of equals."""
        return best_of(self.history) or self.initial

    @property
    def is_confirmed(self) -> bool:
        """Whether the best prompt's score is complete, or cannot be completed."""
        return self.best.score.partial is None or self.best.is_dropped

    @cached_property
    def reflections(self) -> dict[Prompt, str]:
        """Prompt → the last reflection on it, for every prompt that was current and reflected on."""
        return {
            current.prompt: step.direction.reflection
            for current, step in zip(self.currents, self.steps, strict=False)
            if step.direction.reflection is not None
        }

    @property
    def spending(self) -> Spending:
        """What the search cost so far, including the current update."""
        steps = sum((step.spending for step in self.steps), start=self.initial_spending)
        steps += self.confirmation_spending
        return steps + self.proposal.spending if self.proposal else steps

    def unseen(self, prompts: Iterable[Prompt]) -> tuple[Prompt, ...]:
        """The prompts that were never evaluated in this search, in order and without duplicates."""
        seen = {candidate.prompt for candidate in self.history}
        seen.update(prompt for step in self.steps for prompt in step.unscored)
        return tuple(prompt for prompt in dict.fromkeys(prompts) if prompt not in seen)

    def begin(self, proposal: Proposal) -> Trajectory:
        """The trajectory with a proposal that is not scored yet."""
        if self.proposal is not None:
            raise ValueError("the trajectory has a proposal already")
        return replace(self, proposal=proposal)

    def append(self, step: Step) -> Trajectory:
        """The trajectory after a step."""
        if step.index != len(self.steps):
            raise ValueError(f"step {step.index} does not follow {len(self.steps)} steps")
        return replace(self, steps=(*self.steps, step), proposal=None)

    def rescored(self, scores: Mapping[Prompt, Score]) -> Trajectory:
        """The trajectory with other scores of these prompts."""

        def changed(candidate: Candidate) -> Candidate:
            score = scores.get(candidate.prompt, candidate.score)
            return candidate if score is candidate.score else replace(candidate, score=score)

        steps = tuple(
            replace(step, candidates=tuple(map(changed, step.candidates)), successor=changed(step.successor))
            for step in self.steps
        )
        return replace(self, initial=changed(self.initial), steps=steps)
