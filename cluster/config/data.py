"""Section ``data`` of a task: where its examples come from."""

from __future__ import annotations

from typing import Any, Literal

from cluster.config.section import ConfigPath, Section


class FilesConfig(Section):
    """Three files of examples, JSON Lines or CSV."""

    train: ConfigPath
    """Shown to the optimizer model, a few at a time."""
    val: ConfigPath
    """Steers the search."""
    test: ConfigPath
    """Scored for the initial and the final prompt only."""


class BenchmarkConfig(Section):
    """A known benchmark in its own folder layout."""

    benchmark: Literal["bbh", "mmlu", "gsm8k", "wsc", "webnlg"]
    name: str | None = None
    """One of its tasks, e.g. ``navigate``; left out where the benchmark is a single one."""
    root: ConfigPath
    """The benchmark's folder, or the folder that holds it."""


class FieldsConfig(Section):
    """Which columns hold what."""

    input: str = "input"
    """The question, text or ticket."""
    target: str = "target"
    """The right answer, or a list of right answers."""


def data_kind(value: Any) -> str:
    """Which of the sections is meant."""
    has_benchmark = "benchmark" in value if isinstance(value, dict) else isinstance(value, BenchmarkConfig)
    return "benchmark" if has_benchmark else "files"
