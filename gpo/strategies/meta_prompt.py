"""The meta-prompt: what the optimizer model is told when it is asked for a new prompt.

The wording is this project's own. A meta-prompt is a strategy: ``full`` explains the task to a capable model,
``compact`` shows a small model by example what to do. Both ask for the new prompt between ``<START>`` and ``<END>``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Protocol

from gpo.data.example import Example
from gpo.evaluation.answer_format import Position
from gpo.models.protocol import Message
from gpo.strategies.refinement import Generation, Refinement
from gpo.strategies.sections import END, SCALE, START, example_lines, joined, neutral, shown, titled
from gpo.trajectory import Candidate, Direction


@dataclass(frozen=True, slots=True)
class Brief:
    """Everything that may go into a meta-prompt.

    Attributes:
        current: the prompt to improve.
        direction: what the search so far tells.
        step_size: words that may change; ``None`` is no bound.
        exemplars: train examples that show the task.
        position: where the prompt will stand.
    """

    current: Candidate
    direction: Direction
    step_size: int | None
    exemplars: Sequence[Example]
    position: Position


class MetaPrompt(Protocol):
    """Turns a brief into a conversation."""

    def messages(self, brief: Brief) -> list[Message]:
        """The conversation whose next turn holds the new prompt."""
        ...

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings at which the optimizer model shall stop generating."""
        ...


_PLACES = {
    Position.QUESTION_END: "directly after the input",
    Position.QUESTION_BEGIN: "directly before the input",
    Position.BEFORE_QUESTION: "above the input, set apart by an empty line",
    Position.ANSWER_BEGIN: "at the beginning of the answer",
    Position.SYSTEM: "in the system message, apart from the input",
}


@dataclass(frozen=True, slots=True)
class FullMetaPrompt:
    """One instruction in titled sections, for models that follow long instructions.

    Scores are shown as percentages, and the text says so.

    Attributes:
        refinement: what the model is to do.
        show_scores: whether prompts stand with their scores. Without, they are only texts to vary.
    """

    refinement: Refinement = field(default_factory=Generation)
    show_scores: bool = True

    @property
    def stop(self) -> tuple[str, ...]:
        return ()

    def messages(self, brief: Brief) -> list[Message]:
        direction = brief.direction
        content = joined(
            self._assignment(brief.position),
            titled("Examples of the task", "\n\n".join(example_lines(example) for example in brief.exemplars)),
            titled("What the search has taught so far", neutral(direction.summary or "")),
            titled(self._history_title(), "\n\n".join(self._history(direction))),
            titled("Current prompt", shown(brief.current, score=self.show_scores)),
            titled("Reflection on the current prompt", neutral(direction.reflection or "")),
            titled("What to do", self._instructions(brief)),
        )
        return [{"role": "user", "content": content}]

    def _assignment(self, position: Position) -> str:
        scale = f" {SCALE}" if self.show_scores else ""
        aim = "a prompt with a higher score" if self.show_scores else "a prompt under which more answers are correct"
        return (
            "You improve prompts. A language model receives a prompt together with one input at a time and has to "
            f"answer correctly; the prompt stands {_PLACES[position]}.{scale} Your aim is {aim}."
        )

    def _history_title(self) -> str:
        return "Earlier prompts and their scores, worst first" if self.show_scores else "Earlier prompts"

    def _history(self, direction: Direction) -> list[str]:
        past = list(zip_longest(direction.neighbours, direction.neighbour_reflections))
        if self.show_scores:
            past.sort(key=lambda entry: entry[0].score.mean)
        return [
            shown(candidate, score=self.show_scores) + (f"\nReflection: {neutral(reflection)}" if reflection else "")
            for candidate, reflection in past
        ]

    def _instructions(self, brief: Brief) -> str:
        return (
            f"{self.refinement.instruction(self._evidence(brief.direction), brief.step_size)} It must work for every "
            "input of the task, so do not put a particular input or answer into it, and do not repeat a prompt shown "
            f"above. Write the new prompt between {START} and {END}, and nothing else."
        )

    def _evidence(self, direction: Direction) -> str:
        sources = []
        if direction.neighbours and self.show_scores:
            sources.append("what separates prompts with high scores from those with low ones")
        if direction.summary:
            sources.append("what the search has taught so far")
        if direction.reflection or any(direction.neighbour_reflections):
            sources.append("what the reflections say")
        return f"Go by {', and by '.join(sources)}." if sources else ""
