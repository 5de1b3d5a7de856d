"""Answers that are texts: equal to the target, naming one label, or similar to references (ROUGE-L)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from rapidfuzz.distance import LCSseq

from gpo.data.example import Example
from gpo.evaluation.metrics.scorer import BARE_ANSWER, announced, without_markup

# Excludes signs with a meaning: "-5" is not "5", and "C#" is not "C".
_AROUND = " .,;:!?\"'`“”‘’()[]{}<>*_"
# Separators of list items; bullets are removed with the markup.
_BETWEEN_ITEMS = re.compile(r"^[ \t]*\d+[.)]\s+|[,;](?=\s|\Z)", re.MULTILINE)
_BRACKETS = re.compile(r"[\s()\[\]{}<>]+")
# Anchored at the beginning, since a search in a text without words would try every start position.
_LAST_WORD = re.compile(r"\A.*\w", re.DOTALL)
_TOKEN = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class ExactScorer:
    """The answer equals the target word for word.

    Case, white space, Markdown marks and surrounding punctuation do not count. The following parts may equal the
    target: the whole answer, its first or last line, the text after the last line that ends with a colon, and the text
    after the last "the answer is", up to its end or to the end of the line. A target inside other text does not count
    (use ``LabelScorer`` for that). A target of several words may be written as a list with commas, bullets or numbers.
    A target of brackets alone may follow the last word, with or without spaces.
    """

    def score(self, answer: str, example: Example) -> float:
        """1 if the answer equals a target, else 0."""
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
        return BARE_ANSWER


def _plain(text: str) -> str:
    """Lower case, single spaces, and no punctuation around the text, unless it consists of punctuation."""
    folded = " ".join(text.lower().split())
    return folded.strip(_AROUND) or folded


def _packed(text: str) -> str:
    return "".join(text.split())


@dataclass(frozen=True)
class LabelScorer:
    """The answer contains the target and no other label, as whole words in any case.

    "It is positive." is right for ``positive``; "positive or negative" is wrong for both. If one label is part of
    another ("new york" in "new york city"), only the longer one counts there.

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
        """1 if the only label in the answer is a target, else 0."""
        named = {found.lower() for found in self._pattern.findall(without_markup(answer))}
        return float(len(named) == 1 and named <= {target.strip().lower() for target in example.targets})

    def follow_up(self, example: Example) -> str:
        """Asks for one of the labels or, if there are many, for the bare answer."""
        if len(self.labels) > 20:
            return BARE_ANSWER
        return f"Now give only the final answer, one of: {', '.join(self.labels)}."


@dataclass(frozen=True, slots=True)
class RougeScorer:
    """The answer is a free text; its score is the best ROUGE-L F1 over the references."""

    def score(self, answer: str, example: Example) -> float:
        """ROUGE-L F1 with the most similar reference, in [0, 1]."""
        return max(rouge_l(answer, reference) for reference in example.targets)

    def follow_up(self, example: Example) -> None:
        """No question, since the text is the answer."""
        return


def rouge_l(text: str, reference: str) -> float:
    """ROUGE-L F1 (Lin, 2004) in [0, 1]: the longest common subsequence as a share of the words of both texts.

    Words are in lower case and without punctuation. 0 if a text has no word. O(n·m).
    """
    ours, theirs = _TOKEN.findall(text.lower()), _TOKEN.findall(reference.lower())
    common = LCSseq.similarity(ours, theirs)
    return 2 * common / (len(ours) + len(theirs)) if common else 0.0
