"""Where in a longer answer its conclusion stands."""

from __future__ import annotations

import re

_ANNOUNCEMENT = re.compile(
    r"(?:(?:final\s+|correct\s+|right\s+|best\s+)?(?:answer|choice|option|result|label)\b[\s*_]*(?:is|:|=|are)"
    r"|####|\\boxed\{|\btherefore\b[,:]?|\bso\b,)[\s:*_]*",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"[*_`]+|^#+\s*", re.MULTILINE)


def without_markup(answer: str) -> str:
    """The answer without Markdown's emphasis, code and heading marks."""
    return _MARKUP.sub("", answer).strip()


def announced(answer: str) -> str | None:
    """What follows the last announcement such as "the answer is", up to the end; ``None`` where there is none."""
    end = None
    for match in _ANNOUNCEMENT.finditer(answer):
        end = match.end()
    return answer[end:] if end is not None else None
