"""What the benchmarks measure: ``gpo run`` on a workload, and scripts of other optimizers (``benchmarks/peers``)."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.measuring.measurement import Subject
from benchmarks.measuring.servers import ROOT
from benchmarks.simulated.domains import DOMAINS, write_task, write_tasks
from benchmarks.simulated.landscape import TICKETS

NUM_PER_LABEL: Mapping[str, int] = {"train": 6, "val": 25, "test": 10}
"""24 examples in ``train``, 100 in ``val``, 40 in ``test``; the same for peers."""
CANDIDATES = 8


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A run and the endpoint that it uses.

    Attributes:
        name: of the scenario.
        trajectories: number of trajectories of one task from one prompt, with the seeds 0, 1 and so on.
        steps: of each trajectory, with eight candidates each.
        limit: calls that the endpoint serves at once.
        latency_ms: of the endpoint.
        max_concurrency: as configured for the run; ``None`` is the endpoint's limit.
        error_rate: share of calls that the endpoint answers with 500.
        num_per_label: examples of each of the four labels in each split.
        preset: of the configuration. ``paper`` scores every candidate in full, as the peers do.
        sections: additional sections of the configuration, merged over the default ones.
    """

    name: str
    trajectories: int
    steps: int
    limit: int = 32
    latency_ms: float = 200.0
    max_concurrency: int | None = None
    error_rate: float = 0.0
    num_per_label: Mapping[str, int] = field(default_factory=lambda: NUM_PER_LABEL)
    preset: str = "paper"
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def endpoint_options(self) -> list[object]:
        """Options for ``EndpointProcess``."""
        return ["--latency-ms", self.latency_ms, "--limit", self.limit, "--error-rate", self.error_rate]


def write_configuration(folder: Path, workload: Workload, base_url: str) -> Path:
    """Write ``config.yaml`` and the task's files to a folder that also holds the completion cache; return its path."""
    endpoint = {"base_url": base_url, "check": False, "max_concurrency": workload.max_concurrency or workload.limit}
    config: dict[str, Any] = {
        "preset": workload.preset,
        "run": {"name": "benchmark", "seeds": list(range(workload.trajectories))},
        "models": {
            "task": {**endpoint, "model": "task-model", "sampling": {"max_tokens": 64}},
            "optimizer": {**endpoint, "model": "opt-model", "sampling": {"max_tokens": 512}},
        },
        "tasks": write_tasks(folder, [TICKETS], workload.num_per_label),
        "optimizer": {"steps": workload.steps, "candidates": CANDIDATES},
        "cache": {"path": str(folder / "completions.sqlite")},
    }
    for name, options in workload.sections.items():
        config[name] = {**config.get(name, {}), **options}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path


def command(config: Path, results: Path, settings: Sequence[str] = ()) -> list[str]:
    """``gpo run``; settings such as ``evaluation.val_size=20`` override the configuration."""
    options = [word for setting in settings for word in ("--set", setting)]
    return [sys.executable, "-m", "cluster.cli", "run", str(config), "--run-dir", str(results), *options]


def scores(results: Path) -> tuple[float, float] | None:
    """Mean ``val`` and ``test`` scores of the trajectories' best prompts; ``None`` if one is missing."""
    path = results / "summary.json"
    if not path.exists():
        return None
    rows = [row["best"] for row in json.loads(path.read_text(encoding="utf-8"))["trajectories"]]
    if not rows or any(row is None or row["test"] is None for row in rows):
        return None
    return sum(row["val"] for row in rows) / len(rows), sum(row["test"] for row in rows) / len(rows)


def subject(workload: Workload, settings: Sequence[str] = ()) -> Subject:
    """``gpo run`` on a workload.

    Args:
        settings: override the configuration, such as ``evaluation.val_size=20``.
    """
    return Subject(
        name=workload.name,
        command=lambda url, folder: command(write_configuration(folder, workload, url), folder / "results", settings),
        scores=lambda folder, _: scores(folder / "results"),
        env={"PYTHONPATH": str(ROOT)},
        endpoint_options=workload.endpoint_options,
        limit=workload.limit,
        latency_s=workload.latency_ms / 1000,
        trajectories=workload.trajectories,
    )


@dataclass(frozen=True, slots=True)
class Peer:
    """Another optimizer: its name, and its script in ``benchmarks/peers``."""

    name: str
    script: str
    options: tuple[str, ...] = ()


PEERS: dict[str, Peer] = {
    "copro": Peer("DSPy COPRO", "dspy_copro"),
    "gepa": Peer("GEPA", "gepa_reflective"),
    "opro": Peer("promptolution OPRO", "promptolution_search", ("--optimizer", "opro")),
    "evoprompt": Peer("promptolution EvoPrompt", "promptolution_search", ("--optimizer", "evoprompt")),
}


def peer_subject(peer: Peer, python: Path | None, workload: Workload, steps: int) -> Subject:
    """A peer with the settings of a workload, as far as the peer supports them.

    Args:
        python: interpreter with the packages of ``benchmarks/peers/requirements.txt``; ``None`` for this one.
        steps: number of steps with eight candidates each.
    """

    def command(base_url: str, folder: Path) -> list[str]:
        write_task(folder / TICKETS, TICKETS, 0, workload.num_per_label)
        options = {"base-url": base_url, "data": folder / TICKETS, "prompt": DOMAINS[TICKETS].initial, "steps": steps}
        options |= {"concurrency": workload.max_concurrency or workload.limit}
        options |= {"labels": ",".join(DOMAINS[TICKETS].labels)}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        # Not resolved: a virtual environment is recognised by the path of its symbolic link.
        interpreter = str(python.absolute()) if python else sys.executable
        return [interpreter, "-m", f"benchmarks.peers.{peer.script}", *peer.options, *words]

    return Subject(
        name=peer.name,
        command=command,
        scores=lambda _, output: _printed_scores(output),
        env={"PYTHONPATH": str(ROOT)},
        endpoint_options=workload.endpoint_options,
        limit=workload.limit,
        latency_s=workload.latency_ms / 1000,
    )


def _printed_scores(output: Path) -> tuple[float, float] | None:
    """The scores in the last JSON line that a script printed."""
    for line in reversed(output.read_text(encoding="utf-8", errors="replace").splitlines()):
        if line.startswith('{"val":'):
            scores = json.loads(line)
            return scores["val"], scores["test"]
    return None
