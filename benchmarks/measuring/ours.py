"""A configuration on the simulated endpoint, run by ``gpo run`` as users type it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.measuring.endpoint_process import ROOT
from benchmarks.measuring.outcome import Subject
from benchmarks.simulated.domains import DOMAINS, write_task
from benchmarks.simulated.landscape import TICKETS

NUM_PER_LABEL: Mapping[str, int] = {"train": 6, "val": 25, "test": 10}
"""24 examples in ``train``, 100 in ``val``, 40 in ``test``; peers are given the same."""
CANDIDATES = 8


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is run on which endpoint.

    Attributes:
        name: of the scenario.
        trajectories: of one task, from one prompt, with the seeds 0, 1 and so on.
        steps: of each, with eight candidates each.
        limit: what the endpoint serves at once.
        latency_ms: of the endpoint.
        max_concurrency: what our configuration says; the limit, where it is ``None``.
        error_rate: share of the calls that the endpoint answers with 500.
        num_per_label: examples of each of the four labels in the splits.
        sections: further sections of the configuration, or options of those that are there.
    """

    name: str
    trajectories: int
    steps: int
    limit: int = 32
    latency_ms: float = 200.0
    max_concurrency: int | None = None
    error_rate: float = 0.0
    num_per_label: Mapping[str, int] = field(default_factory=lambda: NUM_PER_LABEL)
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def endpoint_options(self) -> list[object]:
        """For ``EndpointProcess``."""
        return ["--latency-ms", self.latency_ms, "--limit", self.limit, "--error-rate", self.error_rate]


def write_configuration(folder: Path, load: Load, base_url: str) -> Path:
    """Write ``config.yaml`` and the task's files to a folder, which holds the completions' cache too; its path."""
    write_task(folder / TICKETS, TICKETS, 0, load.num_per_label)
    at_once = load.max_concurrency or load.limit
    place = {"base_url": base_url, "max_concurrency": at_once}
    config: dict[str, Any] = {
        "run": {"name": "benchmark", "seeds": list(range(load.trajectories))},
        "models": {
            "task": {**place, "model": "task-model", "sampling": {"max_tokens": 64}},
            "optimizer": {**place, "model": "opt-model", "sampling": {"max_tokens": 512}},
        },
        "tasks": [
            {
                "name": TICKETS,
                "data": {split: f"{TICKETS}/{split}.jsonl" for split in load.num_per_label},
                "fields": {"input": "text", "target": "label"},
                "prompt": DOMAINS[TICKETS].initial,
                "position": "question_begin",
                "answer": {"kind": "exact"},
            }
        ],
        "optimizer": {"steps": load.steps, "candidates": CANDIDATES},
        "cache": {"path": str(folder / "completions.sqlite")},
    }
    for name, options in load.sections.items():
        config[name] = {**config.get(name, {}), **options}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path


def command(config: Path, results: Path, settings: Sequence[str] = ()) -> list[str]:
    """``gpo run``, with settings such as ``evaluation.val_size=20`` put over the configuration."""
    options = [word for setting in settings for word in ("--set", setting)]
    return [sys.executable, "-m", "cluster.cli", "run", str(config), "--run-dir", str(results), *options]


def scores(results: Path) -> tuple[float, float] | None:
    """Means over the trajectories of the best prompts' ``val`` and ``test`` scores; ``None`` if one has none."""
    path = results / "summary.json"
    if not path.exists():
        return None
    rows = [row["best"] for row in json.loads(path.read_text(encoding="utf-8"))["trajectories"]]
    if not rows or any(row is None or row["test"] is None for row in rows):
        return None
    return sum(row["val"] for row in rows) / len(rows), sum(row["test"] for row in rows) / len(rows)


def subject(load: Load, settings: Sequence[str] = ()) -> Subject:
    """``gpo run`` on a load, to be measured.

    Args:
        settings: put over the configuration, such as ``evaluation.val_size=20``.
    """
    return Subject(
        name=load.name,
        command=lambda url, folder: command(write_configuration(folder, load, url), folder / "results", settings),
        scores=lambda folder, _: scores(folder / "results"),
        env={"PYTHONPATH": str(ROOT)},
        endpoint_options=load.endpoint_options,
        limit=load.limit,
        latency_s=load.latency_ms / 1000,
        trajectories=load.trajectories,
    )
