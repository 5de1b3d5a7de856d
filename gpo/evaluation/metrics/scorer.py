"""What every scorer implements, and helpers that find the conclusion of an answer."""

from __future__ import annotations

import re
from typing import Protocol

from gpo.data.example import Example

BARE_ANSWER = "Now give only the final answer and nothing else."
"""A follow-up question that fits every kind of answer."""

_STATED = (
    r"(?:final\s+|correct\s+|right\s+|best\s+)?(?:answer|choice|option|result|label)\b[\s*_]*"
    r"(?:(?:is|are|(?:would|should|must|will)\s+be)\b|:|=)|####|\\boxed\{"
)
_ANNOUNCEMENT = re.compile(rf"(?:{_STATED}|\btherefore\b[,:]?|\bso\b,)[\s:*_]*", re.IGNORECASE)
_STATEMENT = re.compile(rf"(?:{_STATED})[\s:*_]*", re.IGNORECASE)
# Marks within a word ("snake_case", "3*4") and between spaces ("3 * 4") are no markup.
_MARKUP = re.compile(r"^[ \t]*(?:#+|[-*+•])\s+|^#+|(?<!\w)[*_`]+(?=\S)|(?<=\S)[*_`]+(?!\w)", re.MULTILINE)


class Scorer(Protocol):
    """Judges answers of one kind."""

    def score(self, answer: str, example: Example) -> float:
        """How right the answer is, in [0, 1].

        Never raises for any answer: one from which nothing can be read scores 0. Only a function of the user's own
        may fail, and that is no verdict.

        Raises:
            EvaluationError: such a function failed.
        """
        ...

    def follow_up(self, example: Example) -> str | None:
        """The question of a second round, which asks for the bare answer; ``None`` where a free text is the answer."""
        ...


def without_markup(answer: str) -> str:
    """The answer without Markdown's emphasis, code, heading and bullet marks."""
    return _MARKUP.sub("", answer).strip()


def announced(answer: str) -> str | None:
    """What follows the last announcement such as "the answer is" or "therefore"; ``None`` where there is none."""
    return _after_last(_ANNOUNCEMENT, answer)


def stated(answer: str) -> str | None:
    """What follows the last "the answer is" or its like, which the answer itself comes right after; or ``None``."""
    return _after_last(_STATEMENT, answer)


def _after_last(pattern: re.Pattern[str], answer: str) -> str | None:
    end = None
    for match in pattern.finditer(answer):
        end = match.end()
    return answer[end:] if end is not None else None
