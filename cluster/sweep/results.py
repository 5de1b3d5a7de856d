"""What a sweep leaves in its folder, made from the study: figures, the best configuration, a report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table
from rich.text import Text

from actors.folder import Folder
from cluster.config.loading import dump
from cluster.display.progress import percent
from cluster.results.outputs import as_json
from cluster.sweep.loading import SweepConfig, without_budget
from cluster.sweep.metrics import STATES
from cluster.sweep.population import spread
from cluster.sweep.storage import opened_with
from cluster.sweep.study import SharedStudy, values_by_step
from cluster.sweep.winner import best_trial, completed, pareto_front
from gpo.errors import StorageError
from gpo.limits.messages import Spent

_SHOWN = 10
FILES = {"report.html": "report", "best_config.yaml": "best configuration", "sweep.json": "figures"}


@dataclass(frozen=True, slots=True)
class SweepRecord:
    """What a sitting knows beside the study.

    Attributes:
        wall_s: seconds of all sittings in this folder.
        spent: by all processes.
        ended_by: which budget is exhausted; may be empty.
    """

    sweep_id: str
    status: str
    started_at: float
    wall_s: float
    spent: Spent
    ended_by: str = ""


def sweep_document(config: SweepConfig, study: SharedStudy, record: SweepRecord, folder: Folder) -> dict[str, Any]:
    """The content of ``sweep.json``."""
    trials = study.trials()
    best = best_trial(trials)
    counts = Counter(STATES[trial.state] for trial in trials)
    return {
        "sweep_id": record.sweep_id,
        "status": record.status,
        "started_at": _iso(record.started_at),
        "updated_at": _iso(time.time()),
        "wall_s": round(record.wall_s, 3),
        "study": {"name": config.study, "storage": opened_with(config.section.storage, folder)},
        "objectives": list(config.section.objectives),
        "trials": {"wanted": config.section.trials, **{state: counts[state] for state in STATES.values()}},
        "spent": asdict(record.spent),
        "ended_by": record.ended_by or None,
        "best": None if best is None else _trial(best, config.section.objectives),
        "pareto_front": [trial.number for trial in pareto_front(trials)]
        if len(config.section.objectives) > 1
        else None,
        "importance": importance(study.study, trials),
        "confirmation": study.confirmation,
        "population": {"tasks": [task.name for task in config.base.tasks], "seeds": list(config.base.run.seeds)},
        "all": [_trial(trial, config.section.objectives) for trial in trials],
    }


def importance(study: optuna.Study, trials: Sequence[FrozenTrial]) -> dict[str, float] | None:
    """Path → its share in what decides ``val``, by PED-ANOVA; ``None`` where trials are too few or too alike."""
    if len(completed(trials)) < 4:
        return None
    # Where it is given a target, it asks what makes that small.
    target = (lambda trial: -trial.values[0]) if len(study.directions) > 1 else None
    try:
        shares = optuna.importance.get_param_importances(study, target=target)
    except (ValueError, RuntimeError, ZeroDivisionError):
        return None
    return {path: round(share, 4) for path, share in shares.items()}


def save_sweep(
    config: SweepConfig, study: SharedStudy, record: SweepRecord, folder: Folder, *, report: str | None
) -> dict[str, Any]:
    """Write the files; the content of ``sweep.json``.

    Args:
        report: the page, or ``None`` to write figures and configuration alone.

    Raises:
        StorageError: a file could not be written, or the study cannot be read.
    """
    document = sweep_document(config, study, record, folder)
    contents = {"sweep.json": as_json(document)}
    if document["best"] is not None:
        contents["best_config.yaml"] = best_config(config, document["best"]).encode()
    if report is not None:
        contents["report.html"] = report.encode()
    for name, content in contents.items():
        write(folder, name, content)
    return document


def write(folder: Folder, name: str, content: bytes) -> None:
    """Replace a file of the sweep.

    Raises:
        StorageError: it could not be written.
    """
    try:
        folder.write(name, content)
    except (OSError, ImportError, ValueError) as error:
        raise StorageError(f"{folder.path(name)} cannot be written: {error}") from None


def best_config(config: SweepConfig, best: Mapping[str, Any]) -> str:
    """The configuration of the best trial, as ``gpo run`` accepts it."""
    run = without_budget(config.space.config(best["params"]))
    head = f"# Trial {best['number']} of the sweep {config.study}: mean val {percent(best['val'])}.\n"
    return head + dump(run)


def sweep_table(document: Mapping[str, Any]) -> Table:
    """The best trials, for a terminal."""
    counts, objectives = document["trials"], document["objectives"]
    told = ", ".join(f"{counts[state]} {state}" for state in STATES.values() if counts[state])
    table = Table(
        title=Text(f"{document['sweep_id']}: {document['status']} ({told})"), title_justify="left", title_style="bold"
    )
    table.add_column("Trial", justify="right")
    for objective in objectives:
        table.add_column(objective, justify="right")
    table.add_column("Setting", overflow="fold")
    rows = [row for row in document["all"] if row["state"] == "complete"]
    rows.sort(key=lambda row: (-row["values"][objectives[0]], row["number"]))
    front = set(document["pareto_front"] or ())
    for row in rows[:_SHOWN]:
        cells = [percent(row["values"]["val"]), *(f"{row['values'][name]:,.4g}" for name in objectives[1:])]
        mark = " (front)" if row["number"] in front else ""
        setting = ", ".join(f"{_short(path)}={shown(value)}" for path, value in row["params"].items())
        paper = "the paper's setting: " if row["number"] == 0 else ""
        table.add_row(f"{row['number']}{mark}", *cells, Text(paper + setting))
    return table


def shown(value: Any) -> str:
    """A value of an option, to four digits where it is a fraction."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _short(path: str) -> str:
    """The last two words of a path."""
    return ".".join(path.split(".")[-2:])


def _trial(trial: FrozenTrial, objectives: Sequence[str]) -> dict[str, Any]:
    steps = values_by_step(trial)
    values = dict(zip(objectives, trial.values, strict=True)) if trial.state is TrialState.COMPLETE else None
    attrs = trial.user_attrs
    return {
        "number": trial.number,
        "state": STATES[trial.state],
        "is_paper": trial.number == 0,
        "params": dict(trial.params),
        "values": values,
        "val": values["val"] if values else (sum(steps[-1]) / len(steps[-1]) if steps else None),
        "stderr": attrs.get("stderr"),
        "by_task": attrs.get("by_task"),
        "steps": [
            {"step": index, "mean": round(sum(each) / len(each), 6), "spread": round(spread(each), 6)}
            for index, each in enumerate(steps, start=1)
        ],
        "spent": attrs.get("spent"),
        "wall_s": attrs.get("wall_s"),
        "error": attrs.get("error"),
        "folder": attrs.get("folder"),
    }


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
