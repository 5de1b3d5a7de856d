"""Small configurations: one task of sorting support tickets, two seeds, three steps."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml

from cluster.config.section import Section, option_docs, sections_in
from gpo.errors import ConfigError
from tests.paths import TRIAGE


class WriteConfig(Protocol):
    def __call__(self, folder: Path, base_url: str | None, **changes: Any) -> Path: ...


def write_small_config(folder: Path, base_url: str | None, **changes: Any) -> Path:
    """Write ``config.yaml``: the small configuration, with the keyword arguments merged over its sections.

    ``tasks`` holds one dictionary per task, each merged over the triage task. The completion store is beside the
    configuration: an endpoint of another test may have had the same port.

    Unless the changes choose a scoring, a preset or methods to compare, the initial prompt answers all of ``val``, and
    steps have more calls than with the defaults. Tests can then kill a run during a step.
    """
    changes.setdefault("cache", {"path": str(folder / "completions.sqlite")})
    if not changes.keys() & {"preset", "compare"}:
        changes["evaluation"] = {"scoring": {"block": 5, "most": 20}, **changes.get("evaluation", {})}
    changes["tasks"] = [merged(triage_task(), task) for task in changes.get("tasks", [{}])]
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(merged(small_config(base_url), changes), sort_keys=False), encoding="utf-8")
    return path


CHECKED = {"task": {"check": True}, "optimizer": {"check": True}}
"""The section ``models`` of a test of the check before a run."""


def small_config(base_url: str | None) -> dict[str, Any]:
    """Everything but the tasks. Models are not checked before a run, so that tests can count the run's own calls."""
    endpoint: dict[str, Any] = {"base_url": base_url} if base_url else {}
    endpoint["check"] = False
    return {
        "run": {"name": "triage", "seeds": [0, 1]},
        "models": {
            "task": {**endpoint, "model": "task-model", "sampling": {"max_tokens": 64}},
            "optimizer": {**endpoint, "model": "opt-model", "sampling": {"max_tokens": 512}},
        },
        "optimizer": {"steps": 3, "candidates": 3},
        "evaluation": {"val_size": 20, "test_size": 30},
    }


def triage_task() -> dict[str, Any]:
    """One entry of ``tasks``."""
    return {
        "name": "triage",
        "data": {split: str(TRIAGE / f"{split}.jsonl") for split in ("train", "val", "test")},
        "fields": {"input": "text", "target": "label"},
        "prompt": "Classify the support ticket into one of: billing, technical, shipping, account.",
        "position": "question_begin",
        "answer": {"kind": "exact"},
    }


def submitted_config(**models: Any) -> dict[str, Any]:
    """A run that writes to shared storage, with data files beside the configuration.

    Args:
        models: sections that replace those of ``models``.
    """
    return {
        "run": {"dir": "/storage/runs"},
        "models": {"task": {"model": "t"}, "optimizer": {"model": "o"}, **models},
        "tasks": [
            {
                "name": "triage",
                "data": {split: f"data/{split}.jsonl" for split in ("train", "val", "test")},
                "prompt": "Think.",
                "position": "question_begin",
                "answer": {"kind": "exact"},
            }
        ],
    }


def refused(action: Callable[[], object]) -> ConfigError:
    """The mistake that an action finds; it is described in one line, with a remedy."""
    with pytest.raises(ConfigError) as caught:
        action()
    assert "\n" not in str(caught.value)
    assert caught.value.remedy
    return caught.value


def merged(config: Any, changes: Any) -> Any:
    """The configuration with the changes put over it, section by section."""
    if isinstance(config, dict) and isinstance(changes, dict):
        return {**config, **{name: merged(config.get(name), value) for name, value in changes.items()}}
    return changes


def collect_leftovers() -> None:
    """Free what other tests left, before docstrings are read from the source.

    If tasks that failed are freed while Python 3.11 parses, the logged tracebacks are parsed as well, and Python takes
    the one for the other: ``SystemError: AST constructor recursion depth mismatch``.
    """
    gc.collect()


def option_texts(section: type[Section], path: str = "") -> Iterator[tuple[str, str]]:
    """Every option that a section can have, at any depth: its path, and its docstring."""
    if not path:
        collect_leftovers()
    docs = option_docs(section)
    for name, field in section.model_fields.items():
        here = f"{path}.{name}".removeprefix(".")
        yield here, docs.get(name, "")
        for below in sections_in(field.annotation):
            yield from option_texts(below, here)
