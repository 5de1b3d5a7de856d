"""The simulated task model: right as often as the prompt is good."""

from __future__ import annotations

import re
from collections.abc import Sequence

from benchmarks.simulated.domains import DOMAINS
from benchmarks.simulated.hashing import pick, uniform
from benchmarks.simulated.landscape import quality
from benchmarks.simulated.question import read_question
from gpo.models.protocol import Message

GAIN_PER_DEMONSTRATION = 0.02
"""How much likelier a right answer is with each demonstration."""
MAX_DEMONSTRATIONS = 4
"""Further ones teach nothing more."""

# How ``gpo.evaluation.metrics`` asks for the bare answer, whatever the kind of answer.
_FOLLOW_UP = "Now give only the final answer"
_LETTERED = re.compile(r"^\s*\(([A-Z])\)", re.MULTILINE)
_BULLETED = re.compile(r"^\s*- (\w+)[ \t]*$", re.MULTILINE)
_EITHER = re.compile(
    r"\b(yes|true|valid|plausible|correct) or (no|false|invalid|implausible|incorrect)\b", re.IGNORECASE
)
_BOOLEAN = re.compile(r"\b(?:True|False)\b")
_ANYTHING = ("Yes", "No", "(A)", "(B)", "42")


def answer(messages: Sequence[Message], *, seed: int) -> str:
    """The bare answer to the last question of a conversation; what a follow-up asks for is the same again.

    To an example of one of the domains, the answer is the right label where the example's difficulty, uniform in
    [0, 1) and the same under every prompt, lies below the prompt's quality: a better prompt is right about every
    example that a worse one is right about. Demonstrations, which are earlier questions with their answers, count like
    quality. To anything else it is one of the options that the question lists, by hash.
    """
    asked, num_demonstrations = _last_question(messages)
    question = read_question(asked)
    if question is None:
        # A follow-up may offer options where the question does not.
        return pick(_options(asked) or _options(messages[-1]["content"]) or _ANYTHING, seed, "answer", asked)
    taught = GAIN_PER_DEMONSTRATION * min(num_demonstrations, MAX_DEMONSTRATIONS)
    if uniform(seed, "difficulty", question.text) < quality(question.prompt, question.domain) + taught:
        return question.label
    wrong = [label for label in DOMAINS[question.domain].labels if label != question.label]
    return pick(wrong, seed, "mistake", question.text)


def _last_question(messages: Sequence[Message]) -> tuple[str, int]:
    """What the system and the last turn that asks a question say, and how many pairs of turns stand before it."""
    users = [index for index, turn in enumerate(messages) if turn["role"] == "user"]
    if len(users) > 1 and _is_follow_up(messages[users[-1]]["content"]):
        users.pop()
    last = users[-1] if users else len(messages)
    heard = [turn for index, turn in enumerate(messages) if turn["role"] == "system" or index == last]
    answered = sum(turn["role"] == "assistant" for turn in messages[:last])
    return _all(heard), answered


def _is_follow_up(content: str) -> bool:
    # A prompt may begin with these words; it then comes with an example.
    return content.startswith(_FOLLOW_UP) and read_question(content) is None


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
