"""Answers that are texts: equal to the target, naming one label, or similar to references (ROUGE-L)."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from functools import lru_cache

from gpo.data.example import Example
from gpo.evaluation.metrics.normal_form import UNSPACED, normal_form, unwrapped
from gpo.evaluation.metrics.scorer import (
    BARE_ANSWER,
    RECENT,
    announced,
    misread,
    neither_nor,
    quoted,
    without_markup,
)

# Excludes signs with a meaning: "-5" is not "5", and "C#" is not "C".
_AROUND = " .,;:!?\"'`()[]{}<>*_「」『』《》〈〉【】"
# Separators of list items; bullets are removed with the markup.
_BETWEEN_ITEMS = re.compile(r"^[ \t]*\d+[.)]\s+|[,;](?=\s|\Z)", re.MULTILINE)
_BRACKETS = re.compile(r"[\s()\[\]{}<>]+")
# Anchored at the beginning, since a search in a text without words would try every start position.
_LAST_WORD = re.compile(r"\A.*\w", re.DOTALL)
_TOKEN = re.compile(r"\w+")
_FILLERS = ("a", "an", "the", "very", "really", "particularly", "exactly", "quite")
_DENIAL = rf"\b(?:not|never|isn't|wasn't|aren't|neither|nor)\s+(?:(?:{'|'.join(_FILLERS)})\s+)*"
_SEPARATOR = re.compile(r"[\s_-]+")
_MOST_LISTED = 20
"""More labels are not listed in a text for a model."""
_WHOLE_NUMBER = re.compile(r"-?\d+(?:\.0+)?")


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
        raw = unwrapped(answer).strip()
        text = without_markup(raw)
        conclusion = announced(text) or text
        lines = [*text.splitlines()[:1], *text.splitlines()[-1:], *conclusion.splitlines()[:1]]
        found = [answer.strip(), raw, text, conclusion, text.rpartition(":\n")[2], *lines]
        readings = {_plain(reading) for reading in (*found, *(_BETWEEN_ITEMS.sub(" ", item) for item in found))}
        closing = _packed(_LAST_WORD.sub("", text).strip(" \n.,:;!\"'`*"))
        return float(
            any(
                _plain(target) in readings or (_BRACKETS.fullmatch(target) and _packed(target) == closing)
                for target in map(normal_form, example.targets)
            )
        )

    def explain(self, answer: str, example: Example) -> str:
        """Whether the right answer is there, with other text around it."""
        words = f" {' '.join(_TOKEN.findall(answer.casefold()))} "
        wanted = (" ".join(_TOKEN.findall(target.casefold())) for target in example.targets)
        if any(target and f" {target} " in words for target in wanted):
            return "the right answer has other text around it; it must be alone"
        return "the answer does not equal the right one, word for word"

    def follow_up(self, example: Example) -> str:
        """Asks for the bare answer."""
        return BARE_ANSWER


def _plain(text: str) -> str:
    """Lower case, single spaces, and no punctuation around the text, unless it consists of punctuation."""
    folded = " ".join(unicodedata.normalize("NFC", text.casefold()).split())
    return folded.strip(_AROUND) or folded


def _packed(text: str) -> str:
    return "".join(text.split())


@dataclass(frozen=True)
class LabelScorer:
    """The answer contains the target and no other label, as whole words in any case.

    "It is positive." is right for ``positive``; "positive or negative" is wrong for both, and so is "not positive".
    "Neither positive nor negative" names no label.
    If one label is part of another ("new york" in "new york city"), only the longer one counts there. Hyphens,
    articles and ``1.0`` in place of ``1`` do not make a different label.

    Args:
        labels: every label of the task.
    """

    labels: tuple[str, ...]
    _pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _neither: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        longest_first = sorted(
            dict.fromkeys(map(_words, self.labels)), key=lambda words: len(" ".join(words)), reverse=True
        )
        named = "|".join(_pattern_of(words) for words in longest_first if words)
        pattern = re.compile(rf"(?P<label>{named})|{_DENIAL}(?P<denied>{named})", re.IGNORECASE)
        object.__setattr__(self, "_pattern", pattern)
        object.__setattr__(self, "_neither", neither_nor(named))

    def score(self, answer: str, example: Example) -> float:
        """1 if the only label in the answer is a target, else 0."""
        found = _found(self, answer)
        named = {_key(match["label"] or match["denied"]) for match in found}
        is_denied = any(match["denied"] for match in found)
        return float(len(named) == 1 and not is_denied and named <= {_key(target) for target in example.targets})

    def can_read(self, answer: str, example: Example) -> bool:
        """Whether there is a label in the answer."""
        return bool(_found(self, answer))

    def reads_as(self, answer: str, example: Example) -> str | None:
        """The only label in the answer, as targets or labels write it; ``None`` without one, or if it is denied."""
        found = _found(self, answer)
        named = {_key(match["label"] or "") for match in found}
        if len(named) != 1 or "" in named:
            return None
        return next((label for label in (*example.targets, *self.labels) if _key(label) in named), None)

    def explain(self, answer: str, example: Example) -> str:
        """The labels that were found."""
        found = _found(self, answer)
        denied = [match["denied"] for match in found if match["denied"]]
        named = {_key(match["label"] or match["denied"]): match["label"] or match["denied"] for match in found}
        if not named:
            among = f"; the labels are {', '.join(self.labels)}" if len(self.labels) <= _MOST_LISTED else ""
            return f"no label was found in the answer{among}"
        if len(named) > 1:
            return f"the answer names several labels: {', '.join(named.values())}"
        return (
            f"the answer denies {quoted(denied[0])}" if denied else misread(next(iter(named.values())), example.target)
        )

    def found(self, answer: str) -> list[re.Match[str]]:
        """The labels in the answer, in order: the group ``label``, or ``denied`` after a negation."""
        text = without_markup(unwrapped(answer)).casefold()
        if not any("neither" in label.casefold() for label in self.labels):
            text = self._neither.sub(" ", text)
        return list(self._pattern.finditer(text))

    def follow_up(self, example: Example) -> str:
        """Asks for one of the labels or, if there are many, for the bare answer."""
        if len(self.labels) > _MOST_LISTED:
            return BARE_ANSWER
        return f"Now give only the final answer, one of: {', '.join(self.labels)}."


# An answer is scored, read and explained, one after the other.
@lru_cache(RECENT)
def _found(scorer: LabelScorer, answer: str) -> list[re.Match[str]]:
    return scorer.found(answer)


def _words(label: str) -> tuple[str, ...]:
    """The words of a label, in lower case: hyphens, underscores and articles between them do not count."""
    label = normal_form(label).casefold().strip()
    if _WHOLE_NUMBER.fullmatch(label):
        return (label.partition(".")[0],)
    words = [word for word in _SEPARATOR.split(label) if word]
    return (*words[:1], *(word for word in words[1:] if word not in _FILLERS)) or ((label,) if label else ())


@lru_cache(1024)
def _key(label: str) -> str:
    """One form for all ways to write a label."""
    return "".join(_words(label))


def _pattern_of(words: tuple[str, ...]) -> str:
    """Matches a label in all these ways, and in no longer word."""
    first, last = words[0][0], words[-1][-1]
    if len(words) == 1 and words[0].lstrip("-").isdigit():
        return rf"(?<![\w.,-]){re.escape(words[0])}(?:\.0+)?(?!\w|[.,]\d)"
    between = rf"[\s_-]*(?:(?<![^\W_])(?:{'|'.join(_FILLERS)})\s+)?"
    before = rf"(?<![^\W{UNSPACED}])" if _is_of_word(first) else ""
    after = rf"(?![^\W{UNSPACED}]|[+#]+(?!\w))" if _is_of_word(last) else r"(?!\w)" if last in "+#" else ""
    return before + between.join(map(re.escape, words)) + after


def _is_of_word(character: str) -> bool:
    return bool(re.fullmatch(rf"[^\W{UNSPACED}]", character))


@dataclass(frozen=True, slots=True)
class RougeScorer:
    """The answer is a free text; its score is the best ROUGE-L F1 over the references."""

    def score(self, answer: str, example: Example) -> float:
        """ROUGE-L F1 with the most similar reference, in [0, 1]."""
        return max(rouge_l(answer, reference) for reference in example.targets)

    def explain(self, answer: str, example: Example) -> str:
        """How similar the answer is, and how long."""
        closest = max(example.targets, key=lambda reference: rouge_l(answer, reference))
        return (
            f"its similarity to the right answer is {self.score(answer, example):.0%} (ROUGE-L); "
            f"words: {len(answer.split())}, in the right answer: {len(closest.split())}"
        )

    def follow_up(self, example: Example) -> None:
        """No question, since the text is the answer."""
        return


def rouge_l(text: str, reference: str) -> float:
    """ROUGE-L F1 (Lin, 2004) in [0, 1]: the longest common subsequence as a share of the words of both texts.

    Words are in lower case and without punctuation. 0 if a text has no word. O(n·m).
    """
    ours, theirs = _TOKEN.findall(text.lower()), _TOKEN.findall(reference.lower())
    from rapidfuzz.distance import LCSseq  # few tasks have references

    common = LCSseq.similarity(ours, theirs)
    return 2 * common / (len(ours) + len(theirs)) if common else 0.0
