"""Answers that must equal the target."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from gpo.data.example import Example
from gpo.evaluation.metrics.conclusion import announced, without_markup
from gpo.evaluation.metrics.normal_form import normal_form, unwrapped

# Not every sign: "-5" is not "5", nor "C#" the same as "C".
_AROUND = " .,;:!?\"'`()[]{}<>*_「」『』《》〈〉【】"
# What stands between the items of a list; bullets are gone with the markup.
_BETWEEN_ITEMS = re.compile(r"^[ \t]*\d+[.)]\s+|[,;](?=\s|\Z)", re.MULTILINE)
_BRACKETS = re.compile(r"[\s()\[\]{}<>]+")
# From the beginning of the text: elsewhere, each place in a text without words would be tried as a beginning.
_LAST_WORD = re.compile(r"\A.*\w", re.DOTALL)


def _plain(text: str) -> str:
    """Lower case, single spaces, and no punctuation around it, unless there is nothing but punctuation."""
    folded = " ".join(unicodedata.normalize("NFC", text.casefold()).split())
    return folded.strip(_AROUND) or folded


def _packed(text: str) -> str:
    return "".join(text.split())


@dataclass(frozen=True, slots=True)
class ExactScorer:
    """The answer is the target, word for word.

    Case, white space, Markdown marks and punctuation around the answer do not count. Taken for the answer: all of it,
    its first or its last line, what follows the last line that ends with a colon, or what follows the last "the answer
    is", to the end or to the end of the line; a target inside other text is not enough (``label`` is the scorer for
    that). Two kinds of target are read more freely: one of several words may be written as a list, with commas,
    bullets or numbers; and one of brackets alone may stand after the last word, with spaces or without.
    """

    def score(self, answer: str, example: Example) -> float:
        """1 where the answer equals a target, else 0."""
        raw = unwrapped(answer).strip()
        text = without_markup(raw)
        conclusion = announced(text) or text
        lines = [*text.splitlines()[:1], *text.splitlines()[-1:], *conclusion.splitlines()[:1]]
        found = [raw, text, conclusion, text.rpartition(":\n")[2], *lines]
        readings = {_plain(reading) for reading in (*found, *(_BETWEEN_ITEMS.sub(" ", item) for item in found))}
        closing = _packed(_LAST_WORD.sub("", text).strip(" \n.,:;!\"'`*"))
        return float(
            any(
                _plain(target) in readings or (_BRACKETS.fullmatch(target) and _packed(target) == closing)
                for target in map(normal_form, example.targets)
            )
        )

    def follow_up(self, example: Example) -> str:
        """Asks for the bare answer."""
        return "Now give only the final answer and nothing else."
