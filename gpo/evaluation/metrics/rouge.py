"""Free text against reference texts."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rapidfuzz.distance import LCSseq

from gpo.data.example import Example

_TOKEN = re.compile(r"\w+")


def rouge_l(text: str, reference: str) -> float:
    """ROUGE-L F1 (Lin, 2004): harmonic mean of the longest common subsequence's share of either text's words.

    In [0, 1]; words in lower case, punctuation left out. 0 where either text has no word. O(n·m).
    """
    ours, theirs = _TOKEN.findall(text.lower()), _TOKEN.findall(reference.lower())
    common = LCSseq.similarity(ours, theirs)
    return 2 * common / (len(ours) + len(theirs)) if common else 0.0


@dataclass(frozen=True, slots=True)
class RougeScorer:
    """The answer is a text; its score is the best ROUGE-L F1 over the references."""

    def score(self, answer: str, example: Example) -> float:
        """ROUGE-L F1 against the nearest reference, in [0, 1]."""
        return max(rouge_l(answer, reference) for reference in example.targets)

    def follow_up(self, example: Example) -> None:
        """None: the text itself is the answer."""
        return
