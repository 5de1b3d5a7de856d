"""The meta-prompt for small models: example turns in place of instructions."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from gpo.meta_prompt import END, START, Direction, neutral
from gpo.models import Message

_REWRITES = (
    ("Can you spell this right?", "What is the correct spelling of the word in the text? Write the word."),
    (
        "Is this about sport or politics?",
        "What is the topic of the text, sport or politics? Name the topic of the text.",
    ),
    ("How much is that?", "What is the result of the calculation? Write the number."),
    ("Which color do you see?", "What is the color of the object in the sentence? Name the color."),
)
"""Question → clear instruction, each for a task of its own."""


@dataclass(frozen=True, slots=True)
class CompactMetaPrompt:
    """Rewrites shown as turns of a chat, the last of them from the trajectory itself.

    A model of a few hundred million parameters continues such a pattern, where it would not follow a description of
    it. The retrieved prompts become turns as well: each is "rewritten" into the next better one, and the best of them
    into the current prompt. Numbers mean nothing to such a model, so neither scores nor the step size are shown; the
    selection on ``val`` does the rest.
    """

    @property
    def stop(self) -> tuple[str, ...]:
        return (END, "\n")

    def messages(self, direction: Direction) -> list[Message]:
        ascending = sorted(direction.neighbours, key=lambda candidate: candidate.score.mean)
        path = [neutral(candidate.prompt.text) for candidate in (*ascending, direction.current)]
        turns: list[Message] = []
        for before, after in (*_REWRITES, *pairwise(path)):
            turns.append({"role": "user", "content": _request(before)})
            turns.append({"role": "assistant", "content": f"{START}{after}{END}"})
        return [*turns, {"role": "user", "content": _request(path[-1])}]


def _request(prompt: str) -> str:
    return f"Rewrite this instruction: {prompt}"
