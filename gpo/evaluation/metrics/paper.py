"""The scorers behind the paper's published figures, and the choice of a scorer for a benchmark's task.

The rules of the paper's scorers are inferred from published verdicts. They are kept even if they are too strict or too
lenient, so that figures are comparable with the paper's. Each scorer inherits its follow-up question.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gpo.data.catalogue import BENCHMARK_NAMES, Family, known_task, tasks_of
from gpo.data.example import Example
from gpo.errors import ConfigError
from gpo.evaluation.metrics.boolean import BooleanScorer
from gpo.evaluation.metrics.choice import ChoiceScorer
from gpo.evaluation.metrics.number import NumberScorer
from gpo.evaluation.metrics.scorer import Scorer, misread
from gpo.evaluation.metrics.text import ExactScorer, RougeScorer

# Anchored at the beginning, since a search in a text without these words would try every start position.
_ANNOUNCED = re.compile(r"\A.*\banswer\s+is\b", re.IGNORECASE | re.DOTALL)
_OPTION = re.compile(r"\(([A-Z])\)", re.IGNORECASE)
_NUMBER = re.compile(r"(?:(?<![\w)])-)?\d+(?:,\d{3})*(?:\.\d+)?", re.ASCII)
_NO_BRACKET = re.compile(r"[^][(){}<>]")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
_EPSILON = 1e-8
"""Avoids a division by zero. The published figures include it: a perfect text scores 0.999999995."""


def _bare(text: str) -> str:
    """The text after the last "answer is", or all, in lower case, without punctuation and with single spaces."""
    return " ".join(_ANNOUNCED.sub("", text).translate(_WITHOUT_PUNCTUATION).lower().split())


@dataclass(frozen=True, slots=True)
class PaperChoiceScorer(ChoiceScorer):
    """The first letter in round brackets after the last "answer is", or in the whole answer if that is missing.

    Without brackets, the letter must be alone: "B" and "B." count, "Option B" does not. "(A) and (B) are both
    plausible" counts as (A).
    """

    def score(self, answer: str, example: Example) -> float:
        """1 if the letter is the target's, in upper or lower case."""
        read = _option(answer)
        return float(bool(read) and any(read == _bare(target) for target in example.targets))

    def explain(self, answer: str, example: Example) -> str:
        """The letter, or the text that should be one."""
        return misread(_option(answer), example.target)


def _option(answer: str) -> str:
    option = _OPTION.search(_ANNOUNCED.sub("", answer))
    return option[1].lower() if option else _bare(answer)


@dataclass(frozen=True, slots=True)
class PaperBooleanScorer(BooleanScorer):
    """The answer, or the text after its last "answer is", is exactly the target's word.

    Case and punctuation do not count. Any other word makes the answer wrong: "Yes, because …", "It is yes", and also
    "Answer: yes", since only "answer is" announces an answer.
    """

    def score(self, answer: str, example: Example) -> float:
        """1 if the word is the target."""
        read = _bare(answer)
        return float(bool(read) and any(read == _bare(target) for target in example.targets))

    def explain(self, answer: str, example: Example) -> str:
        """The text that should be the target."""
        return misread(_bare(answer), example.target)


@dataclass(frozen=True, slots=True)
class PaperNumberScorer(NumberScorer):
    """The last number in the answer, whatever its conclusion: "18 (from 3 boxes)" is read as 3.

    Units, currency signs, thousands separators and trailing zeros do not count.
    """

    def score(self, answer: str, example: Example) -> float:
        """1 if the number equals the target."""
        read = _last_number(answer)
        return float(read is not None and any(read == _last_number(target) for target in example.targets))

    def explain(self, answer: str, example: Example) -> str:
        """The last number."""
        read = _last_number(answer)
        return "no number was found in the answer" if read is None else misread(f"{read:.15g}", example.target)


def _last_number(text: str) -> float | None:
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


@dataclass(frozen=True, slots=True)
class PaperWordsScorer(ExactScorer):
    """The answer ends with the target's words, split at white space; any text may precede them.

    Lists with bullets or commas are wrong, and so is a full stop at the end, which belongs to the last word.
    """

    def score(self, answer: str, example: Example) -> float:
        """1 if the last words are the target's, in upper or lower case."""
        words = answer.lower().split()
        targets = [target.lower().split() for target in example.targets]
        return float(any(target == words[-len(target) :] for target in targets if target))

    def explain(self, answer: str, example: Example) -> str:
        """That the answer ends otherwise."""
        return "the answer does not end with the right answer, word for word and without punctuation"


@dataclass(frozen=True, slots=True)
class PaperBracketsScorer(ExactScorer):
    """All brackets in the answer are the target's, in the same order.

    Other characters between them do not count, so an answer that repeats the opening brackets is wrong.
    """

    def score(self, answer: str, example: Example) -> float:
        """1 if the brackets are the target's."""
        read = _NO_BRACKET.sub("", answer)
        return float(bool(read) and any(read == _NO_BRACKET.sub("", target) for target in example.targets))

    def explain(self, answer: str, example: Example) -> str:
        """The brackets that were read."""
        read = _NO_BRACKET.sub("", answer)
        return misread(read, _NO_BRACKET.sub("", example.target)) if read else "no bracket was found in the answer"


@dataclass(frozen=True, slots=True)
class PaperTextScorer(RougeScorer):
    """ROUGE-L over whole texts (Lin, 2004, section 3.2), averaged over the references.

    Words are separated by white space and keep their case and punctuation, but every full stop ends a sentence, even in
    "A.Ribicoff". Each word counts once per text. Averaging is strict: an answer equal to one of three references gets
    about 0.7, and an answer in capitals almost 0.
    """

    def score(self, answer: str, example: Example) -> float:
        """The mean F-measure over the references, in [0, 1)."""
        return sum(_rouge_of_words(answer, reference) for reference in example.targets) / len(example.targets)


def _rouge_of_words(text: str, reference: str) -> float:
    """The F-measure of the words on a longest common subsequence of any two sentences."""
    ours, theirs = _sentences(text), _sentences(reference)
    common: set[str] = set()
    for sentence in theirs:
        for other in ours:
            common.update(_common_subsequence(sentence, other))
    if not common:
        return 0.0
    precision = len(common) / len({word for sentence in ours for word in sentence})
    recall = len(common) / len({word for sentence in theirs for word in sentence})
    return 2 * precision * recall / (precision + recall + _EPSILON)


def _sentences(text: str) -> list[list[str]]:
    return [sentence.split() for sentence in text.split(".")]


def _common_subsequence(first: list[str], second: list[str]) -> list[str]:
    """A longest common subsequence, read from the end; of equally long ones, the one later in ``first``."""
    lengths = [[0] * (len(second) + 1)]
    for word in first:
        above, row = lengths[-1], [0]
        for column, other in enumerate(second):
            row.append(above[column] + 1 if word == other else max(above[column + 1], row[column]))
        lengths.append(row)
    found: list[str] = []
    row_index, column = len(first), len(second)
    while row_index and column:
        if first[row_index - 1] == second[column - 1]:
            row_index, column = row_index - 1, column - 1
            found.append(first[row_index])
        elif lengths[row_index - 1][column] > lengths[row_index][column - 1]:
            row_index -= 1
        else:
            column -= 1
    return found


PARSERS: Mapping[str, Mapping[Family, Callable[[], Scorer]]] = {
    "default": {
        "choice": ChoiceScorer,
        "boolean": BooleanScorer,
        "number": NumberScorer,
        "words": ExactScorer,
        "brackets": ExactScorer,
        "text": RougeScorer,
    },
    "paper": {
        "choice": PaperChoiceScorer,
        "boolean": PaperBooleanScorer,
        "number": PaperNumberScorer,
        "words": PaperWordsScorer,
        "brackets": PaperBracketsScorer,
        "text": PaperTextScorer,
    },
}
"""Parser → task family → scorer."""

DATASETS = BENCHMARK_NAMES


def family_of(dataset: str, task: str, *, where: str) -> Family:
    """The family of a benchmark's task; except for BBH, it is the same for all tasks of a benchmark.

    Args:
        where: the setting that names the task, for the error.

    Raises:
        ConfigError: the dataset or the BBH task is unknown.
    """
    if dataset not in DATASETS:
        raise ConfigError(where, f"dataset {dataset!r} is unknown", f"choose one of: {', '.join(DATASETS)}")
    tasks = tasks_of(dataset)
    if dataset != "bbh":
        return tasks[0].family
    known = known_task(dataset, task)
    if known is None:
        raise ConfigError(
            where, f"task {task!r} is not one of bbh", f"choose one of: {', '.join(one.name for one in tasks)}"
        )
    return known.family


def benchmark_scorer(parser: str, dataset: str, task: str, *, where: str) -> Scorer:
    """The scorer of a benchmark's task.

    Args:
        parser: a key of ``PARSERS``.
        where: the setting that names the task, for the error.

    Raises:
        ConfigError: the parser, the dataset or the BBH task is unknown.
    """
    if parser not in PARSERS:
        raise ConfigError("--parser", f"{parser!r} is unknown", f"choose one of: {', '.join(PARSERS)}")
    return PARSERS[parser][family_of(dataset, task, where=where)]()
