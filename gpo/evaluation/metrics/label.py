"""Answers that must name one label out of a known set."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from gpo.data.example import Example
from gpo.evaluation.metrics.conclusion import without_markup


@dataclass(frozen=True)
class LabelScorer:
    """The answer names the target and no other label, as whole words and in any case.

    "It is positive." is right for ``positive``; "positive or negative" is wrong for both. Where one label lies inside
    another ("new york" in "new york city"), only the longer one counts at that place.

    Args:
        labels: every label of the task.
    """

    labels: tuple[str, ...]
    _pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        longest_first = sorted({label.strip() for label in self.labels}, key=len, reverse=True)
        alternatives = "|".join(re.escape(label) for label in longest_first)
        object.__setattr__(self, "_pattern", re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)", re.IGNORECASE))

    def score(self, answer: str, example: Example) -> float:
        """1 where the only label in the answer is a target, else 0."""
        named = {found.lower() for found in self._pattern.findall(without_markup(answer))}
        return float(len(named) == 1 and named <= {target.strip().lower() for target in example.targets})

    def follow_up(self, example: Example) -> str:
        """Asks for one of the labels, or, where there are many, for the bare answer."""
        if len(self.labels) > 20:
            return "Now give only the final answer and nothing else."
        return f"Now give only the final answer, one of: {', '.join(self.labels)}."
