"""The meta-prompt for small models: example turns in place of instructions."""

from __future__ import annotations

from dataclasses import dataclass

from gpo.meta_prompt import END, START, Direction
from gpo.models import Message

_REWRITES = (
    (
        "Translate this to French.",
        "Translate the following English sentence into French. Reply with the translation only.",
    ),
    ("Fix the spelling.", "Correct all spelling mistakes in the text and answer with the corrected text only."),
    ("What topic is this?", "Name the topic of the text. Answer with one word."),
    ("Add the numbers.", "Compute the sum of the numbers. Answer with just the number."),
)
"""Vague instruction → clear one, for tasks that nobody optimizes here."""


@dataclass(frozen=True, slots=True)
class CompactMetaPrompt:
    """Rewrites shown as turns of a chat, then the current prompt.

    A model of a few hundred million parameters continues the pattern, where it would not follow a description of it.
    It takes scores and step size no notice; the selection on ``val`` does the rest.
    """

    @property
    def stop(self) -> tuple[str, ...]:
        return (END, "\n")

    def messages(self, direction: Direction) -> list[Message]:
        turns: list[Message] = []
        for before, after in _REWRITES:
            turns.append({"role": "user", "content": self._request(before)})
            turns.append({"role": "assistant", "content": f"{START}{after}{END}"})
        return [*turns, {"role": "user", "content": self._request(direction.current.prompt.text)}]

    @staticmethod
    def _request(prompt: str) -> str:
        return f"Rewrite this instruction: {prompt}"
