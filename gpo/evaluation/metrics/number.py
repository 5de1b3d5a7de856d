"""Numeric answers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isclose

from gpo.data.example import Example
from gpo.evaluation.metrics.normal_form import normal_form, unwrapped
from gpo.evaluation.metrics.scorer import stated, without_markup

# With thousands separators of any kind, or a decimal comma: 1,234.5, 1'234, 1_234, 1.234.567, 1.234,5, 12,34,567, 3,5.
_GROUPED = (
    r"\d{1,3}(?:,\d{2,3})*,\d{3}(?!\d)(?:\.\d+)?|\d{1,3}(?:['_\u00a0\u2009\u202f]\d{3})+(?!\d)(?:[.,]\d+)?"
    r"|\d{1,3}(?:\.\d{3}){2,}(?!\d)(?:,\d+)?|\d{1,3}(?:\.\d{3})+,\d+|\d+,(?:\d{1,2}|\d{4,})(?![\d,])"
)
_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.])(?P<sign>[-+])?(?:[$€£¥]\s?)?(?:(?P<grouped>" + _GROUPED + r")|(?P<plain>\d+(?:\.\d+)?|\.\d+))"
    r"(?P<exponent>[eE][-+]?\d+)?(?:/(?P<denominator>\d+))?"
)
_SPACES_BETWEEN_DIGITS = re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))")
_SPACED_NUMBER = re.compile(r"[^\w\s]*\s*[-+]?\d{1,3}(?: \d{3})+(?:[.,]\d+)?\s*[^\W\d]*[^\w\s]*")
_MIXED = re.compile(r"(?<![\d.,/])(\d+) (\d+)/([1-9]\d*)(?![\d/])")
_IN_BRACKETS = re.compile(r"\([^()]*\)")
_CALCULATION = r"[\s\d.,$€£¥\\()+\-−*/×÷·=]"
_LEFT_SIDE = re.compile(rf"(?<!{_CALCULATION}){_CALCULATION}*=")
_FRACTION = re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}")


def numbers(text: str) -> list[float]:
    """The numbers in a text, in order, with signs, thousands separators, decimals, exponents and fractions."""
    found: list[float] = []
    text = normal_form(_SPACES_BETWEEN_DIGITS.sub("_", text))
    if _SPACED_NUMBER.fullmatch(text.strip()):
        text = re.sub(r"(?<=\d) (?=\d)", "", text)
    text = _MIXED.sub(lambda parts: str(int(parts[1]) + int(parts[2]) / int(parts[3])), text)
    for match in _NUMBER.finditer(text):
        digits = match["plain"] or _without_separators(match["grouped"])
        try:
            value = float(digits + (match["exponent"] or "")) / float(match["denominator"] or 1)
        except ZeroDivisionError:
            continue
        found.append(-value if match["sign"] == "-" else value)
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
    error of at most 1e-6 and by less than 0.5. Units, currency signs and thousands separators do not count.
    """

    def can_read(self, answer: str, example: Example) -> bool:
        """Whether there is a number in the answer."""
        return bool(numbers(unwrapped(answer)))

    def score(self, answer: str, example: Example) -> float:
        """1 if the number read from the answer equals a target, else 0."""
        read = unwrapped(_SPACES_BETWEEN_DIGITS.sub("_", answer.replace("####", "answer is")))
        text = _FRACTION.sub(r"\1/\2", without_markup(read))
        outside = _IN_BRACKETS.sub(" ", text)
        if numbers(outside):  # "18 (9 * 2)": the calculation is not the answer
            text = outside
        after = numbers(_LEFT_SIDE.sub("", stated(text) or "", count=1))
        value = after[:1] or numbers(text)[-1:]
        targets = [number for target in example.targets for number in numbers(target)[:1]]
        return float(any(_equal(value[0], target) for target in targets) if value else 0)

    def follow_up(self, example: Example) -> str:
        """Asks for the bare number."""
        return "Now give only the final answer, as one number without units."
