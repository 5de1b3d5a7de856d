"""Numeric answers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isclose

from gpo.data.example import Example
from gpo.evaluation.metrics.scorer import stated, without_markup

_NUMBER = re.compile(r"(?<![\w.])[-−+]?(?:[$€£¥]\s?)?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d+)?(?:/\d+)?")
_CALCULATION = r"[\s\d.,$€£¥\\()+\-−*/×÷·=]"
_LEFT_SIDE = re.compile(rf"(?<!{_CALCULATION}){_CALCULATION}*=")
_FRACTION = re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}")


def numbers(text: str) -> list[float]:
    """The numbers in a text, in order, with signs, thousands separators, decimals, exponents and fractions."""
    found: list[float] = []
    for match in _NUMBER.finditer(text):
        plain = re.sub(r"[\s$€£¥,+]", "", match[0]).replace("−", "-")
        numerator, _, denominator = plain.partition("/")
        try:
            found.append(float(numerator) / float(denominator or 1))
        except (ValueError, ZeroDivisionError):
            continue
    return found


def _equal(value: float, target: float) -> bool:
    # The second bound distinguishes large integers.
    return isclose(value, target, rel_tol=1e-6, abs_tol=1e-9) and abs(value - target) < 0.5


@dataclass(frozen=True, slots=True)
class NumberScorer:
    """The answer is a number: the first one after the last "the answer is" or ``####``, else the last one.

    For a calculation ("the answer is 3 + 4 = 7"), the result counts. Numbers are equal if they differ by a relative
    error of at most 1e-6 and by less than 0.5. Units, currency signs and thousands separators do not count.
    """

    def score(self, answer: str, example: Example) -> float:
        """1 if the number read from the answer equals a target, else 0."""
        text = _FRACTION.sub(r"\1/\2", without_markup(answer.replace("####", "answer is")))
        after = numbers(_LEFT_SIDE.sub("", stated(text) or "", count=1))
        value = after[:1] or numbers(text)[-1:]
        targets = [number for target in example.targets for number in numbers(target)[:1]]
        return float(any(_equal(value[0], target) for target in targets) if value else 0)

    def follow_up(self, example: Example) -> str:
        """Asks for the bare number."""
        return "Now give only the final answer, as one number without units."
