"""Answers that must name one label out of a known set."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from gpo.data.example import Example
from gpo.evaluation.metrics.conclusion import without_markup
from gpo.evaluation.metrics.normal_form import UNSPACED, normal_form, unwrapped

_FILLERS = ("a", "an", "the", "very", "really", "particularly", "exactly", "quite")
_DENIAL = rf"\b(?:not|never|isn't|wasn't|aren't|neither|nor)\s+(?:(?:{'|'.join(_FILLERS)})\s+)*"
_SEPARATOR = re.compile(r"[\s_-]+")
_WHOLE_NUMBER = re.compile(r"-?\d+(?:\.0+)?")


@dataclass(frozen=True)
class LabelScorer:
    """The answer names the target and no other label, as whole words and in any case.

    "It is positive." is right for ``positive``; "positive or negative" is wrong for both, and so is "not positive".
    Where one label lies inside another ("new york" in "new york city"), only the longer one counts there. Hyphens,
    articles and ``1.0`` in place of ``1`` make no other label.

    Args:
        labels: every label of the task.
    """

    labels: tuple[str, ...]
    _pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        longest_first = sorted(
            dict.fromkeys(map(_words, self.labels)), key=lambda words: len(" ".join(words)), reverse=True
        )
        named = "|".join(_pattern_of(words) for words in longest_first if words)
        pattern = re.compile(rf"(?P<label>{named})|{_DENIAL}(?P<denied>{named})", re.IGNORECASE)
        object.__setattr__(self, "_pattern", pattern)

    def score(self, answer: str, example: Example) -> float:
        """1 where the only label in the answer is a target, else 0."""
        text = without_markup(unwrapped(answer)).casefold()
        found = list(self._pattern.finditer(text))
        named = {_key(match["label"] or match["denied"]) for match in found}
        is_denied = any(match["denied"] for match in found)
        return float(len(named) == 1 and not is_denied and named <= {_key(target) for target in example.targets})

    def follow_up(self, example: Example) -> str:
        """Asks for one of the labels, or, where there are many, for the bare answer."""
        if len(self.labels) > 20:
            return "Now give only the final answer and nothing else."
        return f"Now give only the final answer, one of: {', '.join(self.labels)}."


def _words(label: str) -> tuple[str, ...]:
    """The words of a label, in lower case: hyphens, underscores and articles between them do not count."""
    label = normal_form(label).casefold().strip()
    if _WHOLE_NUMBER.fullmatch(label):
        return (label.partition(".")[0],)
    words = [word for word in _SEPARATOR.split(label) if word]
    return (*words[:1], *(word for word in words[1:] if word not in _FILLERS)) or ((label,) if label else ())


def _key(label: str) -> str:
    """One form for all ways to write a label."""
    return "".join(_words(label))


def _pattern_of(words: tuple[str, ...]) -> str:
    """Matches a label in all these ways, and in no longer word."""
    first, last = words[0][0], words[-1][-1]
    if len(words) == 1 and words[0].lstrip("-").isdigit():
        return rf"(?<![\w.,-]){re.escape(words[0])}(?:\.0+)?(?!\w|[.,]\d)"
    between = rf"[\s_-]*(?:(?<![^\W_])(?:{'|'.join(_FILLERS)})\s+)?"
    before = rf"(?<![^\W{UNSPACED}])" if _is_of_word(first) else ""
    after = rf"(?![^\W{UNSPACED}]|[+#]+(?!\w))" if _is_of_word(last) else r"(?!\w)" if last in "+#" else ""
    return before + between.join(map(re.escape, words)) + after


def _is_of_word(character: str) -> bool:
    return bool(re.fullmatch(rf"[^\W{UNSPACED}]", character))
