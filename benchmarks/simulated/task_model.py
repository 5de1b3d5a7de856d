"""The simulated task model: the better the prompt, the more of its answers are right."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from benchmarks.simulated.domains import DOMAINS
from benchmarks.simulated.hashing import pick, uniform
from benchmarks.simulated.landscape import WEIGHTS, quality, words_of
from gpo.models.protocol import Message

GAIN_PER_DEMONSTRATION = 0.02
"""By how much each demonstration raises the probability of a right answer."""
MAX_DEMONSTRATIONS = 4
"""Further demonstrations have no effect."""

MEANING: Mapping[str, tuple[str, str]] = {
    keyword: (name, label)
    for name, domain in DOMAINS.items()
    for label, keywords in domain.keywords.items()
    for keyword in keywords
}
"""Keyword → its domain and label."""

# The marks separate question and answer and belong to neither.
_MARKS = re.compile(r"^[QA]:[ \t]*", re.MULTILINE)
# The start of every follow-up question in ``gpo.evaluation.metrics``.
_FOLLOW_UP = "Now give only the final answer"
_LETTERED = re.compile(r"^\s*\(([A-Z])\)", re.MULTILINE)
_BULLETED = re.compile(r"^\s*- (\w+)[ \t]*$", re.MULTILINE)
_EITHER = re.compile(
    r"\b(yes|true|valid|plausible|correct) or (no|false|invalid|implausible|incorrect)\b", re.IGNORECASE
)
_BOOLEAN = re.compile(r"\b(?:True|False)\b")
_ANYTHING = ("Yes", "No", "(A)", "(B)", "42")


@dataclass(frozen=True, slots=True)
class Question:
    """An example with its domain and right label, and the prompt around it."""

    text: str
    domain: str
    label: str
    prompt: str


def answer(messages: Sequence[Message], *, seed: int) -> str:
    """The bare answer to the last question of a conversation; a follow-up gets the same answer again.

    Every example has a difficulty, uniform in [0, 1) and the same under every prompt. The answer is right if the
    prompt's quality exceeds it, so a better prompt answers every example right that a worse one does. Demonstrations
    (earlier questions with their answers) add to the quality. For any other question, a hash picks one of the options
    that the question lists.
    """
    text, num_demonstrations = _last_question(messages)
    question = read_question(text)
    if question is None:
        # A follow-up may list options even if the question does not.
        return pick(_options(text) or _options(messages[-1]["content"]) or _ANYTHING, seed, "answer", text)
    taught = GAIN_PER_DEMONSTRATION * min(num_demonstrations, MAX_DEMONSTRATIONS)
    if uniform(seed, "difficulty", question.text) < quality(question.prompt, question.domain) + taught:
        return question.label
    wrong = [label for label in DOMAINS[question.domain].labels if label != question.label]
    return pick(wrong, seed, "mistake", question.text)


@lru_cache(maxsize=65536)
def keywords_in(line: str) -> frozenset[str]:
    """The keywords of any domain in a text."""
    return words_of(line) & MEANING.keys()


def read_question(text: str) -> Question | None:
    """Split a text into the example and the prompt, which is everything else; ``None`` if no line has a keyword.

    If several lines have keywords, the example is the one with the fewest, and among those the one with the fewest
    words that matter in a prompt.
    """
    lines = _MARKS.sub("", text).split("\n")
    with_keywords = [index for index, line in enumerate(lines) if keywords_in(line)]
    if not with_keywords:
        return None
    example = lines.pop(min(with_keywords, key=lambda index: _unlike_an_example(lines[index]))).strip()
    domain, label = MEANING[min(keywords_in(example))]
    return Question(example, domain, label, "\n".join(lines).strip())


@lru_cache(maxsize=65536)
def _unlike_an_example(line: str) -> tuple[int, int]:
    # A prompt may mention keywords too, but then names several of them, or labels and answers.
    return len(keywords_in(line)), len(words_of(line) & WEIGHTS.keys())


def _last_question(messages: Sequence[Message]) -> tuple[str, int]:
    """The system message and the last turn with a question, and the number of question-answer pairs before it."""
    users = [index for index, turn in enumerate(messages) if turn["role"] == "user"]
    if len(users) > 1 and _is_follow_up(messages[users[-1]]["content"]):
        users.pop()
    last = users[-1] if users else len(messages)
    texts = [turn["content"] for index, turn in enumerate(messages) if turn["role"] == "system" or index == last]
    return "\n".join(texts), sum(turn["role"] == "assistant" for turn in messages[:last])


def _is_follow_up(content: str) -> bool:
    # A prompt may begin with these words, but then the turn contains an example as well.
    return content.startswith(_FOLLOW_UP) and read_question(content) is None


def _options(text: str) -> tuple[str, ...]:
    """The answers that a question offers; empty if it offers none."""
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
