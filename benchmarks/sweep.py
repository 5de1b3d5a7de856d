"""Endpoint use, pruning and samplers of a sweep: ``python -m benchmarks.sweep [OPTIONS]``.

Three measurements, each a Markdown table:

- ``sweep``: ``gpo sweep`` with 48 trials of 2 tasks and 2 seeds, 8 in parallel, on a simulated endpoint: how busy the
  endpoint was from the first call to the last.
- ``pruning``: the same without a pruner: how many calls pruning saves, and how it affects the best trial.
- ``samplers``: TPE against random search on a known response surface, 10 times each. No model is called: the surface is
  a function of the hyperparameters, plus noise of the size that the mean of a population has.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import fmean, stdev
from typing import Any

import optuna
import yaml

from benchmarks.measuring.access_log import read_log, traffic
from benchmarks.measuring.servers import ROOT, EndpointProcess
from benchmarks.simulated.domains import DOMAINS, write_tasks
from cluster.config.loading import validate
from cluster.config.sweep import SweepSection
from cluster.sweep.samplers import build_sampler, quiet
from cluster.sweep.space import Params, Space

TRIALS, PARALLEL, TASKS, SEEDS = 48, 8, 2, (0, 1)
STEPS, CANDIDATES, VAL = 8, 2, 20
LATENCY_S, LIMIT = 0.2, 32
REPETITIONS, SURFACE_TRIALS, NOISE = 10, 48, 0.02
_KIND, _INITIAL, _FINAL, _BY, _TEMPERATURE = (
    "optimizer.schedule.kind",
    "optimizer.schedule.initial",
    "optimizer.schedule.final",
    "optimizer.direction.trajectory.by",
    "models.optimizer.sampling.temperature",
)
SPACE: Mapping[str, Any] = {
    _KIND: {"choices": ["cosine", "linear", "fixed"]},
    _INITIAL: {"low": 2, "high": 60},
    _FINAL: {"low": 1, "high": 30, "at_most": _INITIAL, "when": {_KIND: ["cosine", "linear"]}},
    _BY: {"choices": ["recency", "importance", "relevance"]},
    _TEMPERATURE: {"low": 0.2, "high": 1.8},
}
PRUNER: Mapping[str, Any] = {"kind": "successive_halving", "min_steps": 2, "reduction": 2}


@dataclass(frozen=True, slots=True)
class SweepOutcome:
    """The outcome of one ``gpo sweep``.

    Attributes:
        busy: share of the endpoint's capacity in use from the first to the last call.
        best: ``val`` of the best trial in [0, 1]; ``stderr`` is its standard error over the seeds.
    """

    name: str
    trials: int
    pruned: int
    calls: int
    calling_s: float
    busy: float
    best: float
    stderr: float


def configuration(folder: Path, base_url: str, pruner: Mapping[str, Any], trials: int) -> Path:
    """Write the sweep's configuration and its tasks' files; return the path of the configuration."""
    document = {
        "run": {"name": "benchmark", "seeds": list(SEEDS)},
        "models": {
            "task": {"base_url": base_url, "check": False, "model": "task-model", "max_concurrency": LIMIT},
            "optimizer": {"base_url": base_url, "check": False, "model": "opt-model", "max_concurrency": LIMIT},
        },
        "tasks": write_tasks(folder, list(DOMAINS)[:TASKS]),
        "optimizer": {"steps": STEPS, "candidates": CANDIDATES},
        "evaluation": {"val_size": VAL},
        "cache": {"path": str(folder / "completions.sqlite")},
        "sweep": {
            "trials": trials,
            "max_parallel_trials": PARALLEL,
            "space": dict(SPACE),
            "sampler": {"kind": "tpe", "startup_trials": 12},
            "pruner": dict(pruner),
        },
    }
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


def run_sweep(name: str, folder: Path, pruner: Mapping[str, Any], trials: int) -> SweepOutcome:
    """Run ``gpo sweep`` on a new endpoint.

    Raises:
        RuntimeError: the sweep failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "access.jsonl"
    with EndpointProcess(log, "--latency-ms", 1000 * LATENCY_S, "--limit", LIMIT) as endpoint:
        path = configuration(folder, endpoint.base_url, pruner, trials)
        command = [sys.executable, "-m", "cluster.cli", "sweep", str(path), "--run-dir", str(folder / "results")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with (folder / "output.log").open("w", encoding="utf-8") as output:
            ended = subprocess.run(command, cwd=folder, env=environment, stdout=output, stderr=output, check=False)  # noqa: S603
    if ended.returncode != 0:
        raise RuntimeError(f"gpo sweep failed; see {folder / 'output.log'}")
    seen = traffic(read_log(log))
    assert seen is not None  # noqa: S101
    document = json.loads((folder / "results" / "sweep.json").read_text(encoding="utf-8"))
    return SweepOutcome(
        name=name,
        trials=document["trials"]["complete"] + document["trials"]["pruned"],
        pruned=document["trials"]["pruned"],
        calls=seen.calls,
        calling_s=seen.duration_s,
        busy=seen.busy(LATENCY_S, LIMIT),
        best=document["best"]["val"],
        stderr=document["best"]["stderr"],
    )


def surface(params: Params) -> float:
    """The mean ``val`` in [0, 1] of a setting; the maximum is 0.8, for a linear schedule from 24 to 6 words.

    The loss is quadratic in the logarithm of the step sizes and in the temperature; relevance gains 0.05 over recency.
    """
    initial, final = float(params[_INITIAL] or 1), float(params.get(_FINAL, params[_INITIAL]) or 1)
    loss = 0.08 * math.log(initial / 24) ** 2 + 0.05 * math.log(final / 6) ** 2
    loss += 0.25 * (float(params[_TEMPERATURE] or 0) - 1.0) ** 2
    loss += {"linear": 0.0, "cosine": 0.01, "fixed": 0.03}[str(params[_KIND])]
    loss += {"relevance": 0.0, "importance": 0.02, "recency": 0.05}[str(params[_BY])]
    return max(0.0, 0.8 - loss)


def best_value(sampler: str, seed: int) -> float:
    """The true value of the setting that looks best after all trials, with eight trials in parallel."""
    section = SweepSection.model_validate(
        {"space": dict(SPACE), "sampler": {"kind": sampler}, "seed": seed, "trials": SURFACE_TRIALS}
    )
    model = {"base_url": "http://127.0.0.1:9/v1", "model": "none"}
    raw = {
        "models": {"task": model, "optimizer": model},
        "tasks": [{"name": "none", "data": {"train": "none", "val": "none", "test": "none"}}],
    }
    space = Space(raw, validate(raw, Path.cwd()), Path.cwd(), section.space)
    study = optuna.create_study(direction="maximize")
    noise, settings = Random(f"surface/{seed}"), dict[int, Params]()
    running: list[optuna.Trial] = []

    def finish(trial: optuna.Trial) -> None:
        study.tell(trial, surface(settings[trial.number]) + noise.gauss(0, NOISE))

    for number in range(SURFACE_TRIALS):
        study.sampler = build_sampler(section, number, conditional=space.is_conditional)
        trial = study.ask()
        settings[trial.number] = space.suggested(trial)
        running.append(trial)
        if len(running) == PARALLEL:
            finish(running.pop(0))
    for trial in running:
        finish(trial)
    return surface(settings[study.best_trial.number])


def sweep_table(rows: Sequence[SweepOutcome]) -> str:
    """A table with one row per sweep."""
    lines = [
        "|  | Trials | Pruned | Calls | First to last call | Busy | Best val |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(
            f"| {row.name} | {row.trials} | {row.pruned} | {row.calls:,} | {row.calling_s:.1f} s "
            f"| {100 * row.busy:.1f} % | {100 * row.best:.1f} ± {100 * row.stderr:.1f} |"
            for row in rows
        ),
    ]
    if len(rows) == 2:
        lines += ["", f"Pruning saves {100 * (1 - rows[0].calls / rows[1].calls):.0f} % of the calls."]
    return "\n".join(lines)


def samplers_table() -> str:
    """A table with one row per sampler, and how often TPE was better."""
    found = {sampler: [best_value(sampler, seed) for seed in range(REPETITIONS)] for sampler in ("random", "tpe")}
    lines = ["| Sampler | True val of the best setting | Repetitions |", "| --- | ---: | ---: |"]
    for sampler, values in found.items():
        error = stdev(values) / math.sqrt(len(values))
        lines.append(f"| {sampler} | {100 * fmean(values):.2f} ± {100 * error:.2f} | {len(values)} |")
    ahead = sum(tpe > random for tpe, random in zip(found["tpe"], found["random"], strict=True))
    return "\n".join([*lines, "", f"TPE is better in {ahead} of {REPETITIONS}; the maximum of the surface is 80.00."])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__)
    names = ("sweep", "pruning", "samplers")
    parser.add_argument("--only", nargs="+", choices=names, default=list(names), metavar="NAME")
    parser.add_argument("--trials", type=int, default=TRIALS, help="trials of each sweep")
    parser.add_argument("--folder", type=Path, help="keep configurations, results and logs here")
    settings = parser.parse_args(arguments)
    quiet()
    if "samplers" in settings.only:
        print(samplers_table(), flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = settings.folder or Path(temporary)
        rows: list[SweepOutcome] = []
        if "sweep" in settings.only or "pruning" in settings.only:
            rows.append(run_sweep("pruned", folder / "pruned", PRUNER, settings.trials))
            print(sweep_table(rows), flush=True)
        if "pruning" in settings.only:
            rows.append(run_sweep("not pruned", folder / "whole", {"kind": "none"}, settings.trials))
            print(sweep_table(rows), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
