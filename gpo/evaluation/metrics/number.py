"""Numeric answers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain, product
from math import isclose

from gpo.data.example import Example
from gpo.evaluation.metrics.normal_form import normal_form, unwrapped
from gpo.evaluation.metrics.scorer import misread, stated, without_markup

# With thousands separators of any kind, or a decimal comma: 1,234.5, 1'234, 1_234, 1.234.567, 1.234,5, 12,34,567, 3,5.
_GROUPED = (
    r"\d{1,3}(?:,\d{2,3})*,\d{3}(?!\d)(?:\.\d+)?|\d{1,3}(?:['_\u00a0\u2009\u202f]\d{3})+(?!\d)(?:[.,]\d+)?"
    r"|\d{1,3}(?:\.\d{3}){2,}(?!\d)(?:,\d+)?|\d{1,3}(?:\.\d{3})+,\d+|\d+,(?:\d{1,2}|\d{4,})(?![\d,])"
)
_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.])(?P<sign>[-+])?(?:[$€£¥]\s?)?(?:(?P<grouped>" + _GROUPED + r")|(?P<plain>\d+(?:\.\d+)?|\.\d+))"
    r"(?P<exponent>[eE][-+]?\d+)?(?:/(?P<denominator>\d+))?"
    r"(?:\s?(?P<word>(?i:hundred|thousand|million|billion|trillion|bn))\b|(?P<letter>[kKM])\b)?"
)
_MAGNITUDES = {
    "hundred": 1e2, "thousand": 1e3, "k": 1e3, "million": 1e6, "m": 1e6, "billion": 1e9, "bn": 1e9, "trillion": 1e12,
}  # fmt: skip
# "10^3" or "1.5 × 10^3"; powers of other bases are calculations, or units such as "m^2".
_POWER_OF_TEN = re.compile(
    r"(?:(?P<factor>(?<=\d))\s*(?:[×*x·⋅]|\\times|\\cdot)\s*|(?<![\w.,^/]))10\^\{?(?P<exponent>[-+]?\d{1,3})\}?(?![\d.]\d)"
)
_SPACES_BETWEEN_DIGITS = re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))")
_SPACED_NUMBER = re.compile(r"[^\w\s]*\s*[-+]?\d{1,3}(?: \d{3})+(?:[.,]\d+)?\s*[^\W\d]*[^\w\s]*")
_MIXED = re.compile(r"(?<![\d.,/])(\d+) (\d+)/([1-9]\d*)(?![\d/])")
_IN_BRACKETS = re.compile(r"\([^()]*\)")
_CALCULATION = r"[\s\d.,$€£¥\\()+\-−*/×÷·=^{}]"
_LEFT_SIDE = re.compile(rf"(?<!{_CALCULATION}){_CALCULATION}*=")
_FRACTION = re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}")


def _readings(text: str) -> list[tuple[float, float]]:
    """The numbers in a text, in order: without and with a magnitude such as "million" after them.

    Numbers may have signs, thousands separators, decimals, exponents, powers of ten and fractions.
    """
    found: list[tuple[float, float]] = []
    text = normal_form(_SPACES_BETWEEN_DIGITS.sub("_", text))
    if _SPACED_NUMBER.fullmatch(text.strip()):
        text = re.sub(r"(?<=\d) (?=\d)", "", text)
    text = _MIXED.sub(lambda parts: str(int(parts[1]) + int(parts[2]) / int(parts[3])), text)
    text = _POWER_OF_TEN.sub(lambda power: f"{'' if power['factor'] is not None else '1'}e{power['exponent']}", text)
    for match in _NUMBER.finditer(text):
        digits = match["plain"] or _without_separators(match["grouped"])
        try:
            value = float(digits + (match["exponent"] or "")) / float(match["denominator"] or 1)
        except ZeroDivisionError:
            continue
        value = -value if match["sign"] == "-" else value
        found.append((value, value * _MAGNITUDES.get((match["word"] or match["letter"] or "").lower(), 1)))
    return found


def _without_separators(digits: str) -> str:
    """The digits with a decimal point, if they have decimals, and without thousands separators."""
    digits = re.sub(r"['_\s]", "", digits)
    last = max(digits.rfind(","), digits.rfind("."))
    if last < 0:
        return digits
    separator, decimals = digits[last], digits[last + 1 :]
    is_decimal = digits.count(separator) == 1 and (len(decimals) != 3 or "," in digits[:last] or "." in digits[:last])
    whole = re.sub(r"[.,]", "", digits[:last])
    return f"{whole}.{decimals}" if is_decimal else whole + decimals


def _equal(value: float, target: float) -> bool:
    # The second bound distinguishes large integers.
    return isclose(value, target, rel_tol=1e-6, abs_tol=1e-9) and abs(value - target) < 0.5


@dataclass(frozen=True, slots=True)
class NumberScorer:
    """The answer is a number: the first one after the last "the answer is" or ``####``, else the last one.

    For a calculation ("the answer is 3 + 4 = 7"), the result counts. Numbers are equal if they differ by a relative
    error of at most 1e-6 and by less than 0.5. Units, currency signs and thousands separators do not count. "5 million"
    is both 5 and 5,000,000, since a question may ask for the number of millions.
    """

    def can_read(self, answer: str, example: Example) -> bool:
        """Whether there is a number in the answer."""
        return bool(_readings(unwrapped(answer)))

    def score(self, answer: str, example: Example) -> float:
        """1 if the number read from the answer equals a target, else 0."""
        values = self._read(answer)
        targets = [reading for target in example.targets for reading in _readings(target)[:1]]
        pairs = product(chain.from_iterable(values), chain.from_iterable(targets))
        return float(any(_equal(value, target) for value, target in pairs))

    def explain(self, answer: str, example: Example) -> str:
        """The number that was read."""
        values = self._read(answer)
        return misread(f"{values[0][1]:.15g}", example.target) if values else "no number was found in the answer"

    def _read(self, answer: str) -> list[tuple[float, float]]:
        """The readings of the one number that counts; empty if there is none."""
        read = unwrapped(_SPACES_BETWEEN_DIGITS.sub("_", answer.replace("####", "answer is")))
        text = _FRACTION.sub(r"\1/\2", without_markup(read))
        outside = _IN_BRACKETS.sub(" ", text)
        if _readings(outside):  # "18 (9 * 2)": the calculation is not the answer
            text = outside
        after = _readings(_LEFT_SIDE.sub("", stated(text) or "", count=1))
        return after[:1] or _readings(text)[-1:]

    def follow_up(self, example: Example) -> str:
        """Asks for the bare number."""
        return "Now give only the final answer, as one number without units."
