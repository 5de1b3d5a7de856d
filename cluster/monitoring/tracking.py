"""What is written to MLflow about a run or a sweep. Never a key or the address of an endpoint."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import TYPE_CHECKING, Any

from actors.folder import Folder
from cluster.config import RunConfig
from cluster.config.observability import TrackingConfig
from cluster.config.section import options
from cluster.monitoring.mlflow import MlflowRun, MlflowStore, Point, Writer
from cluster.results.outputs import best_prompts
from cluster.results.run_record import RunRecord
from gpo.checkpoint import Checkpoint
from gpo.trajectory import Candidate, Trajectory

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

_FILES = ("summary.json", "best_prompts.json", "report.html")
_SWEEP_FILES = ("sweep.json", "report.html")
_TESTS = ("test_initial", "test_best")
_STATUS = {"completed": "FINISHED", "failed": "FAILED"}
_TRIAL_STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}


@contextmanager
def tracked(config: RunConfig, record: RunRecord, folder: Folder) -> Iterator[None]:
    """Write the progress of a run to MLflow while it works in this context, and its results at the end."""
    if config.tracking.mlflow is None:
        yield
        return
    with Writer(config.tracking.mlflow, _RunWriter(config, record, folder).write):
        yield


class _RunWriter:
    """Writes an MLflow run for a run, with a nested one for each trajectory.

    Args:
        record: read while its owner updates it; its entries are immutable.
    """

    def __init__(self, config: RunConfig, record: RunRecord, folder: Folder) -> None:
        self._config, self._record, self._folder = config, record, folder
        self._whole: MlflowRun | None = None
        self._trajectories: dict[str, MlflowRun] = {}

    def write(self, store: MlflowStore, is_last: bool) -> None:
        record = self._record
        if self._whole is None:
            tags = {"gpo.run": record.run_id, "gpo.kind": "run"}
            self._whole = store.run(record.run_id, tags, parameters(self._config))
        for key, checkpoint in sorted(dict(record.checkpoints).items()):
            run = self._trajectories.pop(str(key), None)
            if run is None:
                tags = {"gpo.run": record.run_id, "gpo.kind": "trajectory", "gpo.trajectory": str(key)}
                params = {"task": key.task, "seed": key.seed}
                run = store.run(str(key), tags, params, parent=self._whole, steps_of="val_best")
            num_steps = len(checkpoint.trajectory.steps)
            store.write(run, _points(checkpoint.trajectory, run.next_step))
            run.next_step = max(run.next_step, num_steps + 1)
            self._trajectories[str(key)] = run  # only after a success: after a failure, it is looked up in MLflow again
            if is_last:
                store.write(run, _tests(checkpoint))
                store.end(run, "FAILED" if key in record.errors else _STATUS.get(record.status, "KILLED"))
        if is_last:
            store.write(self._whole, _totals(record))
            _keep(store, self._whole, self._folder, _FILES)
            store.end(self._whole, _STATUS.get(record.status, "KILLED"))
            if record.status == "completed":
                self._register(store, self._whole)

    def _register(self, store: MlflowStore, whole: MlflowRun) -> None:
        """Register the best prompt of each task, if the configuration names it."""
        config = self._config.tracking.mlflow
        if config is None or config.register is None:
            return
        known = best_prompts(self._record)
        for task, best in known.items():
            name = config.register if len(known) == 1 else f"{config.register}-{task}"
            store.register(name, best["prompt"], _registry_tags(self._record.run_id, whole, task, best), config.alias)


def _registry_tags(run_id: str, whole: MlflowRun, task: str, best: Mapping[str, Any]) -> dict[str, str]:
    tags = {"gpo.run": run_id, "gpo.mlflow_run": whole.run_id, "gpo.task": task}
    tags["gpo.seed"] = str(best["trajectory"]["seed"])
    for split in ("val", "test"):
        if best[split] is None:
            continue
        tags |= {f"gpo.{split}": f"{best[split]:.4f}", f"gpo.{split}_scored": str(best[f"{split}_scored"])}
        if (ends := best[f"{split}_interval"]) is not None:
            tags[f"gpo.{split}_interval"] = f"{ends['low']:.4f} to {ends['high']:.4f} ({100 * ends['level']:.0f} %)"
    return tags


def parameters(config: RunConfig) -> dict[str, Any]:
    """The options that may affect results: path → value."""
    tracked = {
        path: json.dumps(value) if isinstance(value, tuple) else value
        for path, info, value in options(config)
        if info.tracked and info.sensitive is None and value is not None
    }
    return {"tasks": ", ".join(task.name for task in config.tasks), **tracked}


def _points(trajectory: Trajectory, begin: int) -> Iterator[Point]:
    """Points from a step on: ``val`` of the current and of the best prompt. Step 0 is the initial prompt."""
    best = trajectory.initial.score.mean
    if begin == 0:
        yield from (("val", best, 0), ("val_best", best, 0))
    for number, step in enumerate(trajectory.steps, start=1):
        best = max([best, *(_mean(candidate) for candidate in step.candidates)])
        if number < begin:
            continue
        yield from (("val", step.successor.score.mean, number), ("val_best", best, number))
        yield "candidates", len(step.candidates), number
        if step.step_size is not None:
            yield "step_size_words", step.step_size, number


def _mean(candidate: Candidate) -> float:
    return float("-inf") if candidate.is_dropped else candidate.score.mean


def _tests(checkpoint: Checkpoint) -> Iterator[Point]:
    trajectory = checkpoint.trajectory
    for name, candidate in zip(_TESTS, (trajectory.initial, trajectory.best), strict=True):
        if (test := checkpoint.test.get(candidate.prompt.id)) is not None:
            yield name, test.score.mean, len(trajectory.steps)


def _totals(record: RunRecord) -> Iterator[Point]:
    spent, checkpoints = record.spent, list(record.checkpoints.values())
    if checkpoints:
        yield "val_initial", fmean(one.trajectory.initial.score.mean for one in checkpoints), 0
        yield "val_best", fmean(one.trajectory.best.score.mean for one in checkpoints), 0
    tests = {
        name: [value for one in checkpoints for known, value, _ in _tests(one) if known == name] for name in _TESTS
    }
    yield from ((name, fmean(values), 0) for name, values in tests.items() if values)
    yield from (("calls", spent.calls, 0), ("tokens", spent.tokens, 0), ("cost_usd", spent.usd, 0))
    yield "wall_s", record.wall_s, 0


def _keep(store: MlflowStore, run: MlflowRun, folder: Folder, names: Sequence[str]) -> None:
    for name in names:
        if (content := folder.read(name)) is not None:
            store.keep(run, name, content)


@contextmanager
def tracked_sweep(
    config: TrackingConfig, sweep_id: str, objectives: Sequence[str], folder: Folder
) -> Iterator[Callable[[Sequence[FrozenTrial]], None]]:
    """Write the trials of a sweep that have ended to MLflow while the sweep works in this context.

    Yields:
        a function to call with the trials of the study, now and then and at the end.
    """
    if config.mlflow is None:
        yield _ignore
        return
    writer = _SweepWriter(sweep_id, objectives, folder)
    with Writer(config.mlflow, writer.write):
        yield writer.take


def _ignore(_: Sequence[FrozenTrial]) -> None: ...


class _SweepWriter:
    """Writes an MLflow run for a sweep, with a nested one for each ended trial; other processes of it do the same."""

    def __init__(self, sweep_id: str, objectives: Sequence[str], folder: Folder) -> None:
        self._sweep_id, self._objectives, self._folder = sweep_id, objectives, folder
        self._trials: Sequence[FrozenTrial] = ()
        self._written: set[int] = set()
        self._whole: MlflowRun | None = None

    def take(self, trials: Sequence[FrozenTrial]) -> None:
        self._trials = list(trials)

    def write(self, store: MlflowStore, is_last: bool) -> None:
        if self._whole is None:
            self._whole = store.run(self._sweep_id, {"gpo.run": self._sweep_id, "gpo.kind": "sweep"}, {})
        for trial in self._trials:
            if trial.state.name in _TRIAL_STATUS and trial.number not in self._written:
                self._write_trial(store, self._whole, trial)
                self._written.add(trial.number)
        if is_last:
            _keep(store, self._whole, self._folder, _SWEEP_FILES)
            is_over = all(trial.state.is_finished() for trial in self._trials)
            store.end(self._whole, "FINISHED" if is_over else "KILLED")

    def _write_trial(self, store: MlflowStore, whole: MlflowRun, trial: FrozenTrial) -> None:
        tags = {"gpo.run": self._sweep_id, "gpo.kind": "trial", "gpo.trial": str(trial.number)}
        run = store.run(f"trial {trial.number}", tags, trial.params, parent=whole, reopen=False)
        if run.is_over:
            return  # its status is written last
        last = max(trial.intermediate_values, default=0)
        store.write(run, _reached(trial, self._objectives, last), at=trial.datetime_complete)
        store.end(run, _TRIAL_STATUS[trial.state.name])


def _reached(trial: FrozenTrial, objectives: Sequence[str], last: int) -> Iterator[Point]:
    yield from (("val", val, step) for step, val in trial.intermediate_values.items())
    yield from ((f"objective_{name}", value, last) for name, value in zip(objectives, trial.values or (), strict=False))
    spent = zip(("calls", "tokens", "cost_usd"), trial.user_attrs.get("spent", ()), strict=False)
    yield from ((name, float(value), last) for name, value in spent)
