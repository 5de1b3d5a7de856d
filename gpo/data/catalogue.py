"""Facts about the five benchmarks: their tasks, and how each task is scored and reported. Reads no file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Family = Literal["choice", "boolean", "number", "words", "brackets", "text"]
"""The kind of right answer: an option's letter, yes or no, a number, ordered words, closing brackets, or free text."""


@dataclass(frozen=True, slots=True)
class BenchmarkTask:
    """One task of a benchmark.

    Attributes:
        benchmark: in lower case, as in a configuration.
        name: in lower case; also the folder of its files.
        family: the kind of right answer.
        group: the heading under which its score is reported.
        counts_as: unit in averages; tasks with the same value are averaged first and count as one.
    """

    benchmark: str
    name: str
    family: Family
    group: str
    counts_as: str


_ALGORITHMIC, _NLP = "BBH algorithmic", "BBH NLP"
# From table 2 of Suzgun et al. (2022): 11 algorithmic tasks in 15 folders, 12 NLP tasks.
_BBH: Mapping[str, tuple[Family, str]] = {
    "boolean_expressions": ("boolean", _ALGORITHMIC),
    "causal_judgement": ("boolean", _NLP),
    "date_understanding": ("choice", _NLP),
    "disambiguation_qa": ("choice", _NLP),
    "dyck_languages": ("brackets", _ALGORITHMIC),
    "formal_fallacies": ("boolean", _NLP),
    "geometric_shapes": ("choice", _ALGORITHMIC),
    "hyperbaton": ("choice", _NLP),
    "logical_deduction_five_objects": ("choice", _ALGORITHMIC),
    "logical_deduction_seven_objects": ("choice", _ALGORITHMIC),
    "logical_deduction_three_objects": ("choice", _ALGORITHMIC),
    "movie_recommendation": ("choice", _NLP),
    "multistep_arithmetic_two": ("number", _ALGORITHMIC),
    "navigate": ("boolean", _ALGORITHMIC),
    "object_counting": ("number", _ALGORITHMIC),
    "penguins_in_a_table": ("choice", _NLP),
    "reasoning_about_colored_objects": ("choice", _NLP),
    "ruin_names": ("choice", _NLP),
    "salient_translation_error_detection": ("choice", _NLP),
    "snarks": ("choice", _NLP),
    "sports_understanding": ("boolean", _NLP),
    "temporal_sequences": ("choice", _ALGORITHMIC),
    "tracking_shuffled_objects_five_objects": ("choice", _ALGORITHMIC),
    "tracking_shuffled_objects_seven_objects": ("choice", _ALGORITHMIC),
    "tracking_shuffled_objects_three_objects": ("choice", _ALGORITHMIC),
    "web_of_lies": ("boolean", _ALGORITHMIC),
    "word_sorting": ("words", _ALGORITHMIC),
}
_IN_THREE_SIZES = ("logical_deduction", "tracking_shuffled_objects")

# From categories.py of the authors' evaluation code (github.com/hendrycks/test), by which MMLU is usually reported.
# The table in the MMLU paper (Hendrycks et al., 2021, appendix B) has anatomy under STEM.
_MMLU: Mapping[str, tuple[str, ...]] = {
    "MMLU STEM": (
        "abstract_algebra",
        "astronomy",
        "college_biology",
        "college_chemistry",
        "college_computer_science",
        "college_mathematics",
        "college_physics",
        "computer_security",
        "conceptual_physics",
        "electrical_engineering",
        "elementary_mathematics",
        "high_school_biology",
        "high_school_chemistry",
        "high_school_computer_science",
        "high_school_mathematics",
        "high_school_physics",
        "high_school_statistics",
        "machine_learning",
    ),
    "MMLU humanities": (
        "formal_logic",
        "high_school_european_history",
        "high_school_us_history",
        "high_school_world_history",
        "international_law",
        "jurisprudence",
        "logical_fallacies",
        "moral_disputes",
        "moral_scenarios",
        "philosophy",
        "prehistory",
        "professional_law",
        "world_religions",
    ),
    "MMLU social sciences": (
        "econometrics",
        "high_school_geography",
        "high_school_government_and_politics",
        "high_school_macroeconomics",
        "high_school_microeconomics",
        "high_school_psychology",
        "human_sexuality",
        "professional_psychology",
        "public_relations",
        "security_studies",
        "sociology",
        "us_foreign_policy",
    ),
    "MMLU other": (
        "anatomy",
        "business_ethics",
        "clinical_knowledge",
        "college_medicine",
        "global_facts",
        "human_aging",
        "management",
        "marketing",
        "medical_genetics",
        "miscellaneous",
        "nutrition",
        "professional_accounting",
        "professional_medicine",
        "virology",
    ),
}
_SINGLE: Mapping[str, tuple[Family, str]] = {
    "gsm8k": ("number", "GSM8K"),
    "wsc": ("choice", "WSC"),
    "webnlg": ("text", "WebNLG"),
}


def _all() -> Iterator[BenchmarkTask]:
    for name, (family, group) in _BBH.items():
        unit = next((unit for unit in _IN_THREE_SIZES if name.startswith(unit)), name)
        yield BenchmarkTask("bbh", name, family, group, unit)
    for group, subjects in _MMLU.items():
        for name in subjects:
            yield BenchmarkTask("mmlu", name, "choice", group, name)
    for name, (family, group) in _SINGLE.items():
        yield BenchmarkTask(name, name, family, group, name)


_TASKS = {(task.benchmark, task.name): task for task in _all()}

BENCHMARK_NAMES = tuple(dict.fromkeys(task.benchmark for task in _TASKS.values()))


def known_task(benchmark: str, name: str | None) -> BenchmarkTask | None:
    """The entry of a task, or ``None`` if it is unknown; a benchmark with one task needs no name."""
    return _TASKS.get((benchmark, benchmark if name is None else name))


def tasks_of(benchmark: str) -> tuple[BenchmarkTask, ...]:
    """All tasks of a benchmark in alphabetical order; empty if the benchmark is unknown."""
    found = (task for task in _TASKS.values() if task.benchmark == benchmark)
    return tuple(sorted(found, key=lambda task: task.name))
