"""Multiple choice: the option that an answer settles on."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gpo.examples import Example
from gpo.scoring.conclusion import announced, without_markup

_OPTION_LINE = re.compile(r"^\s*\(([A-Z])\)\s*(.*?)\s*$", re.MULTILINE)
_BRACKETED = re.compile(r"[(\[]\s*([A-Za-z])\s*[)\]]")
_LEADING = re.compile(r"\s*[(\[]?([A-Za-z])(?:[)\].:,]|\s*$|\s+[-–—])")
_UPPER_WORD = re.compile(r"(?<![\w'])([B-HJ-Z])(?![\w'])")


def options(example: Example) -> dict[str, str]:
    """Letter → text of the options listed in an input, one a line: ``(A) some text``. Empty where none is listed."""
    return dict(_OPTION_LINE.findall(example.input))


@dataclass(frozen=True, slots=True)
class ChoiceScorer:
    """The answer is an option letter; targets look like ``(B)`` or ``B``.

    Read in this order, the first that says something decides: the letter after the last "the answer is"; the only
    bracketed letter, or else the last one; a letter that opens the answer; the only option whose text stands in the
    answer; a lone capital letter. Letters beyond the listed options do not count.
    """

    def score(self, answer: str, example: Example) -> float:
        """1 where the letter read from the answer is the target's, else 0."""
        letter = self._letter(without_markup(answer), options(example))
        return float(letter is not None and letter in {target.strip("() ").upper() for target in example.targets})

    def follow_up(self, example: Example) -> str:
        """Asks for one of the listed options."""
        letters = sorted(options(example))
        span = f"from ({letters[0]}) to ({letters[-1]})" if letters else "by its letter, such as (A)"
        return f"Now give only the final answer: one option {span}."

    def _letter(self, answer: str, listed: dict[str, str]) -> str | None:
        conclusion = announced(answer)
        for text in (conclusion, answer):
            if text is None:
                continue
            opening = _LEADING.match(text)
            if text is conclusion and opening and self._is_option(opening[1], listed):
                return str(opening[1]).upper()
            bracketed = [found.upper() for found in _BRACKETED.findall(text) if self._is_option(found, listed)]
            if bracketed:
                return bracketed[0] if text is conclusion else bracketed[-1]
            if opening and self._is_option(opening[1], listed):
                return str(opening[1]).upper()
            named = [letter for letter, option in listed.items() if option and option.lower() in text.lower()]
            if len(named) == 1:
                return named[0]
            alone = [found for found in _UPPER_WORD.findall(text) if self._is_option(found, listed)]
            if alone:
                return alone[-1]
        return None

    @staticmethod
    def _is_option(letter: str, listed: dict[str, str]) -> bool:
        return not listed or letter.upper() in listed
