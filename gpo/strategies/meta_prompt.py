"""Meta-prompts: the requests for a new prompt that the optimizer model receives.

``full`` is one long instruction; ``compact`` shows a small model examples of rewriting. See also ``demonstrations.py``
and ``own_meta_prompt.py``. All ask for the new prompt between ``<START>`` and ``<END>``. The wording is this project's
own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, zip_longest
from typing import Literal, Protocol

from gpo.data.example import Example
from gpo.evaluation.answer_format import Position
from gpo.evaluation.prompt_template import with_instruction
from gpo.models.protocol import Message
from gpo.strategies.refinement import Generation, Refinement
from gpo.strategies.rules import Rules
from gpo.strategies.sections import (
    END,
    SCALE,
    START,
    example_lines,
    failure_lines,
    joined,
    neutral,
    ordered,
    shown,
    titled,
    unexplained,
)
from gpo.trajectory import Candidate, Direction


@dataclass(frozen=True, slots=True)
class Brief:
    """The inputs of a meta-prompt.

    Attributes:
        current: the prompt to improve.
        direction: what the search has shown so far.
        step_size: number of words that may change; ``None`` is no bound.
        exemplars: train examples that show the task.
        position: position of the prompt relative to the input.
        goal: what the task is, in the user's words.
        rules: what each new prompt must keep.
        sample: number of the request among those of a step, ≥ 0. Requests may differ in it.
    """

    current: Candidate
    direction: Direction
    step_size: int | None
    exemplars: Sequence[Example]
    position: Position
    goal: str | None = None
    rules: Rules = field(default_factory=Rules)
    sample: int = 0


class MetaPrompt(Protocol):
    """Turns a brief into a conversation with the optimizer model."""

    def messages(self, brief: Brief) -> list[Message]:
        """The conversation whose next turn contains the new prompt."""
        ...

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings at which the optimizer model stops generating."""
        ...


_PLACES = {
    Position.QUESTION_END: "directly after the input",
    Position.QUESTION_BEGIN: "directly before the input",
    Position.BEFORE_QUESTION: "above the input, set apart by an empty line",
    Position.ANSWER_BEGIN: "at the beginning of the answer",
    Position.SYSTEM: "in the system message, apart from the input",
    Position.PROGRAM: "where a program that calls the language model puts it",
    Position.TEMPLATE: "around the input, which takes the place of what is between {{ and }}",
}


def placed(position: Position) -> str:
    """Where the prompt is, relative to the input."""
    return _PLACES[position]


@dataclass(frozen=True, slots=True)
class FullMetaPrompt:
    """One instruction in titled sections, for models that follow long instructions. Scores are percentages.

    Attributes:
        refinement: what the model should do with the current prompt.
        show_scores: whether prompts are shown with their scores.
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
            titled("Goal of the task", neutral(brief.goal or "")),
            titled("Examples of the task", "\n\n".join(example_lines(example) for example in brief.exemplars)),
            titled("What the search has taught so far", neutral(direction.summary or "")),
            titled(self._history_title(), "\n\n".join(self._history(direction))),
            titled("Current prompt", shown(brief.current, score=self.show_scores)),
            titled("Wrong answers with the current prompt", "\n\n".join(map(failure_lines, unexplained(direction)))),
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
            f"above. {rule_sentences(brief.rules.sentences)}Write the new prompt between {START} and {END}, "
            "and nothing else."
        )

    def _evidence(self, direction: Direction) -> str:
        sources = []
        if direction.neighbours and self.show_scores:
            sources.append("what separates prompts with high scores from those with low ones")
        if direction.summary:
            sources.append("what the search has taught so far")
        if direction.reflection or any(direction.neighbour_reflections):
            sources.append("what the reflections say")
        if unexplained(direction):
            sources.append("what the wrong answers have in common")
        return f"Go by {', and by '.join(sources)}." if sources else ""


def rule_sentences(rules: Sequence[str]) -> str:
    """The rules as text that ends with a space; empty without rules."""
    return "".join(f"{neutral(rule)} " for rule in rules)


Kind = Literal["generation", "editing", "paraphrase"]

_REQUESTS: Mapping[Kind, str] = {
    "generation": "Rewrite this instruction",
    "editing": "Improve a few words of this instruction",
    "paraphrase": "Say this instruction in other words",
}
_EXAMPLES: Mapping[Kind, tuple[tuple[str, str], ...]] = {
    "generation": (
        ("Can you spell this right?", "What is the correct spelling of the word in the text? Write the word."),
        (
            "Is this about sport or politics?",
            "What is the topic of the text, sport or politics? Name the topic of the text.",
        ),
        ("How much is that?", "What is the result of the calculation? Write the number."),
        ("Which color do you see?", "What is the color of the object in the sentence? Name the color."),
    ),
    "editing": (
        ("Can you spell this right?", "Can you spell this word right? Write the word."),
        ("Is this about sport or politics?", "Is this text about sport or politics? Name the topic."),
        ("How much is that?", "How much is that? Write the number."),
        ("Which color do you see?", "Which color does the object have? Name the color."),
    ),
    "paraphrase": (
        ("Can you spell this right?", "Do you know how this is spelled?"),
        ("Is this about sport or politics?", "Does this deal with sport, or with politics?"),
        ("How much is that?", "What does that come to?"),
        ("Which color do you see?", "What color is it that you see?"),
    ),
}
"""Pairs of an instruction and its rewriting, each for another task."""

_MAX_NOTE_WORDS = 60


@dataclass(frozen=True, slots=True)
class CompactMetaPrompt:
    """Shows rewritings as chat turns: fixed examples first, then prompts of the trajectory.

    A model of a few hundred million parameters continues such a pattern but does not follow long instructions. Each
    retrieved prompt is shown as rewritten into the next better one, and the best into the current prompt. A reflection,
    a summary and the reasons of wrong answers precede the last request as short notes. Scores and the step size are not
    shown, since such a model ignores numbers; the selection on ``val`` has to suffice.

    Attributes:
        by_score: order the retrieved prompts by score; otherwise keep the order of retrieval.
    """

    kind: Kind = "generation"
    by_score: bool = True

    @property
    def stop(self) -> tuple[str, ...]:
        return (END, "\n")

    def messages(self, brief: Brief) -> list[Message]:
        past = ordered(brief.direction.neighbours, by_score=self.by_score)
        path = [neutral(candidate.prompt.text) for candidate in (*past, brief.current)]
        examples: Sequence[tuple[str, str]] = _EXAMPLES[self.kind]
        if brief.position is Position.TEMPLATE:
            # The model continues the pattern, so the pattern has the placeholders; and its replies end with the line.
            path = [" ".join(text.split()) for text in path]
            examples = [(with_instruction(path[-1], one), with_instruction(path[-1], other)) for one, other in examples]
        turns: list[Message] = []
        for before, after in (*examples, *pairwise(path)):
            turns.append({"role": "user", "content": self._request(before)})
            turns.append({"role": "assistant", "content": f"{START}{after}{END}"})
        reasons = dict.fromkeys(failure.reason for failure in unexplained(brief.direction) if failure.reason)
        wrong = f"Answers were wrong: {'; '.join(reasons)}" if reasons else None
        known = (brief.goal, brief.direction.summary, brief.direction.reflection, wrong)
        notes = [_note(text) for text in known if text]
        # The turns show placeholders already, and more words make the model lose them.
        notes += [f"Note: {neutral(rule)}" for rule in brief.rules.constraints.sentences()]
        return [*turns, {"role": "user", "content": "\n\n".join([*notes, self._request(path[-1])])}]

    def _request(self, prompt: str) -> str:
        return f"{_REQUESTS[self.kind]}: {prompt}"


def _note(text: str) -> str:
    words = neutral(text).split()
    return f"Note: {' '.join(words[:_MAX_NOTE_WORDS])}{' …' if len(words) > _MAX_NOTE_WORDS else ''}"
