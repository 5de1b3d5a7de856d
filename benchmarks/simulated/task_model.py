"""The simulated task model: right as often as the prompt is good."""

from __future__ import annotations

import re
from collections.abc import Sequence

from benchmarks.simulated.hashing import pick, uniform
from benchmarks.simulated.landscape import quality
from benchmarks.simulated.triage import LABELS, read_question
from gpo.models import Message

_LETTERED = re.compile(r"^\s*\(([A-Z])\)", re.MULTILINE)
_BULLETED = re.compile(r"^\s*- (\w+)[ \t]*$", re.MULTILINE)
_EITHER = re.compile(
    r"\b(yes|true|valid|plausible|correct) or (no|false|invalid|implausible|incorrect)\b", re.IGNORECASE
)
_BOOLEAN = re.compile(r"\b(?:True|False)\b")
_ANYTHING = ("Yes", "No", "(A)", "(B)", "42")


def answer(messages: Sequence[Message], *, seed: int) -> str:
    """The bare answer to the first question of a conversation; what a follow-up asks for is the same again.

    To a ticket, the answer is the right label where the ticket's difficulty, uniform in [0, 1) and the same under
    every prompt, lies below the prompt's quality: a better prompt is right about every ticket that a worse one is
    right about. To anything else it is one of the options that the question lists, by hash.
    """
    opening = _opening(messages)
    question = read_question(opening)
    if question is None:
        return pick(_options(opening) or _options(_all(messages)) or _ANYTHING, seed, "answer", opening)
    if uniform(seed, "difficulty", question.ticket) < quality(question.prompt):
        return question.label
    wrong = [label for label in LABELS if label != question.label]
    return pick(wrong, seed, "mistake", question.ticket)


def _opening(messages: Sequence[Message]) -> str:
    """What was said before the model first spoke."""
    spoke = next((index for index, turn in enumerate(messages) if turn["role"] == "assistant"), len(messages))
    return _all(messages[:spoke])


def _all(messages: Sequence[Message]) -> str:
    return "\n".join(turn["content"] for turn in messages)


def _options(text: str) -> tuple[str, ...]:
    """The answers that a question offers; empty where it offers none."""
    lettered = tuple(f"({letter})" for letter in dict.fromkeys(_LETTERED.findall(text)))
    if lettered:
        return lettered
    bulleted = tuple(dict.fromkeys(_BULLETED.findall(text)))
    if bulleted:
        return bulleted
    either = _EITHER.search(text)
    if either:
        return tuple(side.capitalize() for side in either.groups())
    return ("True", "False") if _BOOLEAN.search(text) else ()
