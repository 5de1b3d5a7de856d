"""Answers that must equal the target."""

from __future__ import annotations

from dataclasses import dataclass

from gpo.examples import Example
from gpo.scoring.conclusion import announced, without_markup

# Not every sign: "-5" is not "5", nor "C#" the same as "C".
_AROUND = " .,;:!?\"'`“”‘’()[]{}<>*_"


def _plain(text: str) -> str:
    """Lower case, single spaces, and no punctuation around it, unless there is nothing but punctuation."""
    folded = " ".join(text.lower().split())
    return folded.strip(_AROUND) or folded


@dataclass(frozen=True, slots=True)
class ExactScorer:
    """The answer is the target, word for word.

    Case, white space, Markdown marks and punctuation around the answer do not count. Taken for the answer: all of it,
    its first or its last line, or what follows the last "the answer is", to the end or to the end of the line; a
    target inside other text is not enough (``label`` is the scorer for that).
    """

    def score(self, answer: str, example: Example) -> float:
        """1 where the answer equals a target, else 0."""
        raw, text = answer.strip(), without_markup(answer)
        conclusion = announced(text) or text
        lines = [*text.splitlines()[:1], *text.splitlines()[-1:], *conclusion.splitlines()[:1]]
        readings = {_plain(reading) for reading in (raw, text, conclusion, *lines)}
        return float(any(_plain(target) in readings for target in example.targets))

    def follow_up(self, example: Example) -> str:
        """Asks for the bare answer."""
        return "Now give only the final answer and nothing else."
