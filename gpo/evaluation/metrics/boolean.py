"""Two-way answers: yes or no, true or false, valid or invalid."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from gpo.data.example import Example
from gpo.evaluation.metrics.scorer import announced, without_markup

_PAIRS = (
    ("yes", "no"),
    ("true", "false"),
    ("valid", "invalid"),
    ("plausible", "implausible"),
    ("correct", "incorrect"),
)
_POLARITY = {word: polarity for pair in _PAIRS for word, polarity in zip(pair, (True, False), strict=True)}
# Up to two words may stand between: "not a valid argument", "isn't logically valid".
_NEGATION = r"(?:(\bnot|\bnever|n['’]t)\s+(?:\w+\s+){0,2}?)?"


def _words(words: Iterable[str]) -> re.Pattern[str]:
    return re.compile(rf"{_NEGATION}\b({'|'.join(words)})\b", re.IGNORECASE)


_ANY = _words(_POLARITY)
_OF_PAIR = {word: _words(pair) for pair in _PAIRS for word in pair}


@dataclass(frozen=True, slots=True)
class BooleanScorer:
    """The answer is one side of a pair; the target says which pair (``Yes``/``No``, ``valid``/``invalid`` …).

    What follows the last "the answer is" decides; where nothing is announced, a verdict that opens the answer, and
    else the last one in it. Words of any pair are understood where those of the target's own are missing ("true" for
    "Yes"), and "not valid" is "invalid".
    """

    def score(self, answer: str, example: Example) -> float:
        """1 where the answer takes the target's side, else 0."""
        own = _OF_PAIR.get(example.target.strip().lower(), _ANY)
        side = self._side(without_markup(answer), own)
        wanted = {_POLARITY.get(target.strip().lower()) for target in example.targets}
        return float(side is not None and side in wanted)

    def follow_up(self, example: Example) -> str:
        """Asks for one word of the target's pair."""
        target = example.target.strip()
        pair = next((pair for pair in _PAIRS if target.lower() in pair), _PAIRS[0])
        first, second = (word.capitalize() if target[:1].isupper() else word for word in pair)
        return f"Now give only the final answer, in one word: {first} or {second}."

    @staticmethod
    def _side(answer: str, own: re.Pattern[str]) -> bool | None:
        conclusion = announced(answer)
        for text in (answer,) if conclusion is None else (conclusion, answer):
            verdicts = list(own.finditer(text)) or list(_ANY.finditer(text))
            if verdicts:
                opens = text is conclusion or not text[: verdicts[0].start()].strip()
                verdict = verdicts[0] if opens else verdicts[-1]
                return _POLARITY[verdict[2].lower()] != bool(verdict[1])
        return None
