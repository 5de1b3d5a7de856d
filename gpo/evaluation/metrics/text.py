"""Answers that are texts: equal to the target, naming one label, or similar to references (ROUGE-L)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from rapidfuzz.distance import LCSseq

from gpo.data.example import Example
from gpo.evaluation.metrics.scorer import announced, without_markup

# Not every sign: "-5" is not "5", nor "C#" the same as "C".
_AROUND = " .,;:!?\"'`“”‘’()[]{}<>*_"
# What stands between the items of a list; bullets are gone with the markup.
_BETWEEN_ITEMS = re.compile(r"^[ \t]*\d+[.)]\s+|[,;](?=\s|\Z)", re.MULTILINE)
_BRACKETS = re.compile(r"[\s()\[\]{}<>]+")
# From the beginning of the text: elsewhere, each place in a text without words would be tried as a beginning.
_LAST_WORD = re.compile(r"\A.*\w", re.DOTALL)
_TOKEN = re.compile(r"\w+")


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
        raw, text = answer.strip(), without_markup(answer)
        conclusion = announced(text) or text
        lines = [*text.splitlines()[:1], *text.splitlines()[-1:], *conclusion.splitlines()[:1]]
        found = [raw, text, conclusion, text.rpartition(":\n")[2], *lines]
        readings = {_plain(reading) for reading in (*found, *(_BETWEEN_ITEMS.sub(" ", item) for item in found))}
        closing = _packed(_LAST_WORD.sub("", text).strip(" \n.,:;!\"'`*"))
        return float(
            any(
                _plain(target) in readings or (_BRACKETS.fullmatch(target) and _packed(target) == closing)
                for target in example.targets
            )
        )

    def follow_up(self, example: Example) -> str:
        """Asks for the bare answer."""
        return "Now give only the final answer and nothing else."


def _plain(text: str) -> str:
    """Lower case, single spaces, and no punctuation around it, unless there is nothing but punctuation."""
    folded = " ".join(text.lower().split())
    return folded.strip(_AROUND) or folded


def _packed(text: str) -> str:
    return "".join(text.split())


@dataclass(frozen=True)
class LabelScorer:
    """The answer names the target and no other label, as whole words and in any case.

    "It is positive." is right for ``positive``; "positive or negative" is wrong for both. Where one label lies inside
    another ("new york" in "new york city"), only the longer one counts at that place.

    Args:
        labels: every label of the task.
    """

    labels: tuple[str, ...]
    _pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        longest_first = sorted({label.strip() for label in self.labels}, key=len, reverse=True)
        alternatives = "|".join(re.escape(label) for label in longest_first)
        object.__setattr__(self, "_pattern", re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)", re.IGNORECASE))

    def score(self, answer: str, example: Example) -> float:
        """1 where the only label in the answer is a target, else 0."""
        named = {found.lower() for found in self._pattern.findall(without_markup(answer))}
        return float(len(named) == 1 and named <= {target.strip().lower() for target in example.targets})

    def follow_up(self, example: Example) -> str:
        """Asks for one of the labels, or, where there are many, for the bare answer."""
        if len(self.labels) > 20:
            return "Now give only the final answer and nothing else."
        return f"Now give only the final answer, one of: {', '.join(self.labels)}."


@dataclass(frozen=True, slots=True)
class RougeScorer:
    """The answer is a text; its score is the best ROUGE-L F1 over the references."""

    def score(self, answer: str, example: Example) -> float:
        """ROUGE-L F1 against the nearest reference, in [0, 1]."""
        return max(rouge_l(answer, reference) for reference in example.targets)

    def follow_up(self, example: Example) -> None:
        """None: the text itself is the answer."""
        return


def rouge_l(text: str, reference: str) -> float:
    """ROUGE-L F1 (Lin, 2004): harmonic mean of the longest common subsequence's share of either text's words.

    In [0, 1]; words in lower case, punctuation left out. 0 where either text has no word. O(n·m).
    """
    ours, theirs = _TOKEN.findall(text.lower()), _TOKEN.findall(reference.lower())
    common = LCSseq.similarity(ours, theirs)
    return 2 * common / (len(ours) + len(theirs)) if common else 0.0
