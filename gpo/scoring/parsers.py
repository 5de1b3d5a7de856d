"""Which scorer judges the answers of a known benchmark: the paper's own rules, or this project's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from gpo.errors import ConfigError
from gpo.scoring.boolean import BooleanScorer
from gpo.scoring.choice import ChoiceScorer
from gpo.scoring.exact import ExactScorer
from gpo.scoring.number import NumberScorer
from gpo.scoring.paper import (
    PaperBooleanScorer,
    PaperBracketsScorer,
    PaperChoiceScorer,
    PaperNumberScorer,
    PaperTextScorer,
    PaperWordsScorer,
)
from gpo.scoring.rouge import RougeScorer
from gpo.scoring.scorer import Scorer

Family = Literal["choice", "boolean", "number", "words", "brackets", "text"]

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
"""Parser → family of tasks → scorer."""

_ONE_FAMILY: Mapping[str, Family] = {"mmlu": "choice", "gsm8k": "number", "wsc": "choice", "webnlg": "text"}
_BBH: Mapping[Family, tuple[str, ...]] = {
    "choice": (
        "date_understanding",
        "disambiguation_qa",
        "geometric_shapes",
        "hyperbaton",
        "logical_deduction_five_objects",
        "logical_deduction_seven_objects",
        "logical_deduction_three_objects",
        "movie_recommendation",
        "penguins_in_a_table",
        "reasoning_about_colored_objects",
        "ruin_names",
        "salient_translation_error_detection",
        "snarks",
        "temporal_sequences",
        "tracking_shuffled_objects_five_objects",
        "tracking_shuffled_objects_seven_objects",
        "tracking_shuffled_objects_three_objects",
    ),
    "boolean": (
        "boolean_expressions",
        "causal_judgement",
        "formal_fallacies",
        "navigate",
        "sports_understanding",
        "web_of_lies",
    ),
    "number": ("multistep_arithmetic_two", "object_counting"),
    "words": ("word_sorting",),
    "brackets": ("dyck_languages",),
}
_FAMILY_OF = {task: family for family, tasks in _BBH.items() for task in tasks}
DATASETS = ("bbh", *_ONE_FAMILY)


def family_of(dataset: str, task: str, *, where: str) -> Family:
    """The family of one task of a benchmark; outside BBH, the benchmark decides alone.

    Args:
        where: what named the task, for the error.

    Raises:
        ConfigError: the dataset, or the task of BBH, is unknown.
    """
    if dataset not in DATASETS:
        raise ConfigError(where, f"dataset {dataset!r} is unknown", f"choose one of: {', '.join(DATASETS)}")
    if dataset != "bbh":
        return _ONE_FAMILY[dataset]
    if task not in _FAMILY_OF:
        raise ConfigError(where, f"task {task!r} is not one of bbh", f"choose one of: {', '.join(sorted(_FAMILY_OF))}")
    return _FAMILY_OF[task]


def benchmark_scorer(parser: str, dataset: str, task: str, *, where: str) -> Scorer:
    """The scorer of one task of a benchmark.

    Args:
        parser: a key of ``PARSERS``.
        where: what named the task, for the error.

    Raises:
        ConfigError: the parser, the dataset, or the task of BBH is unknown.
    """
    if parser not in PARSERS:
        raise ConfigError("--parser", f"{parser!r} is unknown", f"choose one of: {', '.join(PARSERS)}")
    return PARSERS[parser][family_of(dataset, task, where=where)]()
