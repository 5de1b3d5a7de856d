"""Which scorer judges the answers of a known benchmark: the paper's own rules, or this project's."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gpo.data.catalogue import BENCHMARK_NAMES, Family, known_task, tasks_of
from gpo.errors import ConfigError
from gpo.evaluation.metrics.boolean import BooleanScorer
from gpo.evaluation.metrics.choice import ChoiceScorer
from gpo.evaluation.metrics.exact import ExactScorer
from gpo.evaluation.metrics.number import NumberScorer
from gpo.evaluation.metrics.paper import (
    PaperBooleanScorer,
    PaperBracketsScorer,
    PaperChoiceScorer,
    PaperNumberScorer,
    PaperTextScorer,
    PaperWordsScorer,
)
from gpo.evaluation.metrics.rouge import RougeScorer
from gpo.evaluation.metrics.scorer import Scorer

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

DATASETS = BENCHMARK_NAMES


def family_of(dataset: str, task: str, *, where: str) -> Family:
    """The family of one task of a benchmark; outside BBH, the benchmark decides alone.

    Args:
        where: what named the task, for the error.

    Raises:
        ConfigError: the dataset, or the task of BBH, is unknown.
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
