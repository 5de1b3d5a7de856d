"""The meta-prompt for small models: example turns in place of instructions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from gpo.models.protocol import Message
from gpo.strategies.meta_prompt import Brief
from gpo.strategies.sections import END, START, neutral, ordered

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
"""Instruction → what became of it, each for a task of its own."""

_MAX_NOTE_WORDS = 60


@dataclass(frozen=True, slots=True)
class CompactMetaPrompt:
    """Rewrites shown as turns of a chat, the last of them from the trajectory itself.

    A model of a few hundred million parameters continues such a pattern, where it would not follow a description of
    it. The retrieved prompts become turns as well: each is "rewritten" into the next better one, and the best of them
    into the current prompt. A reflection or summary stands before the last request, cut to a note. Numbers mean nothing
    to such a model, so neither scores nor the step size are shown; the selection on ``val`` does the rest.

    Attributes:
        by_score: order the retrieved prompts by their scores; else they stand as they were retrieved.
    """

    kind: Kind = "generation"
    by_score: bool = True

    @property
    def stop(self) -> tuple[str, ...]:
        return (END, "\n")

    def messages(self, brief: Brief) -> list[Message]:
        past = ordered(brief.direction.neighbours, by_score=self.by_score)
        path = [neutral(candidate.prompt.text) for candidate in (*past, brief.current)]
        turns: list[Message] = []
        for before, after in (*_EXAMPLES[self.kind], *pairwise(path)):
            turns.append({"role": "user", "content": self._request(before)})
            turns.append({"role": "assistant", "content": f"{START}{after}{END}"})
        notes = [_note(text) for text in (brief.direction.summary, brief.direction.reflection) if text]
        return [*turns, {"role": "user", "content": "\n\n".join([*notes, self._request(path[-1])])}]

    def _request(self, prompt: str) -> str:
        return f"{_REQUESTS[self.kind]}: {prompt}"


def _note(text: str) -> str:
    words = neutral(text).split()
    return f"Note: {' '.join(words[:_MAX_NOTE_WORDS])}{' …' if len(words) > _MAX_NOTE_WORDS else ''}"
