from __future__ import annotations

from collections import Counter

import pytest

from cluster.config.tasks import BenchmarkConfig
from gpo.data.benchmarks import BENCHMARKS
from gpo.data.catalogue import BENCHMARK_NAMES, BenchmarkTask, known_task, tasks_of


def test_the_benchmarks_are_those_that_can_be_loaded_and_configured() -> None:
    assert set(BENCHMARK_NAMES) == set(BENCHMARKS)
    for name in BENCHMARK_NAMES:
        section = {"benchmark": name, "name": tasks_of(name)[0].name, "root": "."}
        assert BenchmarkConfig.model_validate(section).benchmark == name


@pytest.mark.parametrize(
    ("benchmark", "groups"),
    [
        ("bbh", {"BBH algorithmic": 11, "BBH NLP": 12}),
        ("mmlu", {"MMLU STEM": 18, "MMLU humanities": 13, "MMLU social sciences": 12, "MMLU other": 14}),
        ("gsm8k", {"GSM8K": 1}),
        ("wsc", {"WSC": 1}),
        ("webnlg", {"WebNLG": 1}),
    ],
)
def test_groups_count_as_many_tasks_as_published(benchmark: str, groups: dict[str, int]) -> None:
    assert Counter(group for group, _ in {(task.group, task.counts_as) for task in tasks_of(benchmark)}) == groups


@pytest.mark.parametrize(
    ("benchmark", "name", "expected"),
    [
        ("bbh", "snarks", BenchmarkTask("bbh", "snarks", "choice", "BBH NLP", "snarks")),
        ("bbh", "web_of_lies", BenchmarkTask("bbh", "web_of_lies", "boolean", "BBH algorithmic", "web_of_lies")),
        ("mmlu", "anatomy", BenchmarkTask("mmlu", "anatomy", "choice", "MMLU other", "anatomy")),
        ("gsm8k", None, BenchmarkTask("gsm8k", "gsm8k", "number", "GSM8K", "gsm8k")),
        ("webnlg", "webnlg", BenchmarkTask("webnlg", "webnlg", "text", "WebNLG", "webnlg")),
        ("bbh", "snark", None),
        ("bbh", None, None),
        ("mmlu", "snarks", None),
        ("glue", "sst2", None),
    ],
)
def test_a_task_is_found_by_name(benchmark: str, name: str | None, expected: BenchmarkTask | None) -> None:
    assert known_task(benchmark, name) == expected
