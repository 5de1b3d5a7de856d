"""Two-way answers: yes or no, true or false, valid or invalid."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from gpo.data.example import Example
from gpo.evaluation.metrics.normal_form import unwrapped
from gpo.evaluation.metrics.scorer import RECENT, announced, misread, without_markup

_PAIRS = (
    ("yes", "no"),
    ("true", "false"),
    ("valid", "invalid"),
    ("plausible", "implausible"),
    ("correct", "incorrect"),
)
_POLARITY = {word: polarity for pair in _PAIRS for word, polarity in zip(pair, (True, False), strict=True)}
# Allows up to two words in between: "not a valid argument", "isn't logically valid".
_NEGATION = r"(?:(\bnot|\bnever|\bneither|\bnor|\bcannot|n['’]t)\s+(?:\w+\s+){0,2}?)?"


def _words(words: Iterable[str]) -> re.Pattern[str]:
    return re.compile(rf"{_NEGATION}\b({'|'.join(words)})\b", re.IGNORECASE)


_ANY = _words(_POLARITY)
_WORD = rf"(?:\w+\s+){{0,2}}?\b({'|'.join(_POLARITY)})\b"
_NEITHER = re.compile(rf"\bneither\s+{_WORD},?\s+nor\s+{_WORD}", re.IGNORECASE)
_OF_PAIR = {word: _words(pair) for pair in _PAIRS for word in pair}


def _without_both_sides(found: re.Match[str]) -> str:
    """Remove "neither true nor false", which is no verdict; "neither true nor valid" is one."""
    sides = {_POLARITY[word.lower()] for word in found.groups()}
    return " " if len(sides) == 2 else found[0]


@dataclass(frozen=True, slots=True)
class BooleanScorer:
    """The answer is one side of a pair; the target determines the pair (``Yes``/``No``, ``valid``/``invalid`` …).

    The verdict is read after the last "the answer is"; otherwise it is the first word of the answer or else the last
    verdict in it. If no word of the target's pair occurs, words of the other pairs count ("true" for "Yes"). "Not
    valid" is "invalid".
    """

    def can_read(self, answer: str, example: Example) -> bool:
        """Whether the answer is on any side."""
        return self._read(answer, example) is not None

    def reads_as(self, answer: str, example: Example) -> str | None:
        """The word of the target's pair; ``None`` if the answer is on neither side."""
        side, (first, second) = self._read(answer, example), _pair_of(example)
        return None if side is None else first if side else second

    def _read(self, answer: str, example: Example) -> bool | None:
        return _side(answer, example.target.strip().lower())

    def score(self, answer: str, example: Example) -> float:
        """1 if the answer is on the target's side, else 0."""
        side = self._read(answer, example)
        wanted = {_POLARITY.get(target.strip().lower()) for target in example.targets}
        return float(side is not None and side in wanted)

    def explain(self, answer: str, example: Example) -> str:
        """The side that was read."""
        side, (first, second) = self._read(answer, example), _pair_of(example)
        if side is None:
            return f"neither {first} nor {second} was found in the answer"
        return misread(first if side else second, example.target)

    def follow_up(self, example: Example) -> str:
        """Asks for one word of the target's pair."""
        first, second = _pair_of(example)
        return f"Now give only the final answer, in one word: {first} or {second}."


@lru_cache(RECENT)
def _side(answer: str, target: str) -> bool | None:
    own = _OF_PAIR.get(target, _ANY)
    answer = _NEITHER.sub(_without_both_sides, without_markup(unwrapped(answer)))
    conclusion = announced(answer)
    for text in (answer,) if conclusion is None else (conclusion, answer):
        verdicts = list(own.finditer(text)) or list(_ANY.finditer(text))
        if verdicts:
            opens = text is conclusion or not text[: verdicts[0].start()].strip()
            verdict = verdicts[0] if opens else verdicts[-1]
            return _POLARITY[verdict[2].lower()] != bool(verdict[1])
    return None


def _pair_of(example: Example) -> tuple[str, str]:
    """The words of the target's pair, capitalized if the target is."""
    target = example.target.strip()
    first, second = next((pair for pair in _PAIRS if target.lower() in pair), _PAIRS[0])
    return (first.capitalize(), second.capitalize()) if target[:1].isupper() else (first, second)
