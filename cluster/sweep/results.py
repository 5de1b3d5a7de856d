"""Results of a sweep, made from its study: ``sweep.json``, the best configuration, the report, a table."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import jinja2
import optuna
import optuna.visualization as plots
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from rich.text import Text

from actors.folder import Folder
from cluster.config.loading import dump
from cluster.display.console import FittingTable
from cluster.display.progress import percent
from cluster.results.outputs import as_json
from cluster.runs.run_folder import write_file
from cluster.sweep.config import SweepConfig, without_budget
from cluster.sweep.folder import SweepFolder
from cluster.sweep.metrics import STATES
from cluster.sweep.storage import storage_name
from cluster.sweep.study import SharedStudy, best_trial, completed, pareto_front, values_by_step
from cluster.sweep.trial import spread
from gpo.limits.messages import Spent

_SHOWN = 10
_PAGES = jinja2.Environment(
    loader=jinja2.PackageLoader("cluster.reporting", "templates"), autoescape=True, undefined=jinja2.StrictUndefined
)
FILES = {"report.html": "report", "best_config.yaml": "best configuration", "sweep.json": "figures"}


@dataclass(frozen=True, slots=True)
class SweepRecord:
    """The sweep as this process records it, in addition to the study.

    Attributes:
        wall_s: seconds of work in this folder, over all attempts.
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
        "study": {"name": config.study, "storage": storage_name(config.section.storage, folder)},
        "objectives": list(config.section.objectives),
        "trials": {"wanted": config.section.trials, **{state: counts[state] for state in STATES.values()}},
        "spent": asdict(record.spent),
        "ended_by": record.ended_by or None,
        "best": None if best is None else _trial(best, config.section.objectives),
        "pareto_front": [trial.number for trial in pareto_front(trials)] if len(study.objectives) > 1 else None,
        "importance": importance(study.study, trials),
        "confirmation": study.confirmation,
        "population": {"tasks": [task.name for task in config.base.tasks], "seeds": list(config.base.run.seeds)},
        "all": [_trial(trial, config.section.objectives) for trial in trials],
    }


def importance(study: optuna.Study, trials: Sequence[FrozenTrial]) -> dict[str, float] | None:
    """Path → its importance for ``val``, by PED-ANOVA; ``None`` where trials are too few or too similar."""
    if len(completed(trials)) < 4:
        return None
    # With a target, Optuna computes the importance for making it small.
    target = (lambda trial: -trial.values[0]) if len(study.directions) > 1 else None
    try:
        shares = optuna.importance.get_param_importances(study, target=target)
    except (ValueError, RuntimeError, ZeroDivisionError):
        return None
    return {path: round(share, 4) for path, share in shares.items()}


def save_sweep(
    config: SweepConfig, study: SharedStudy, record: SweepRecord, folder: SweepFolder, *, with_report: bool
) -> dict[str, Any]:
    """Write ``sweep.json``, the best configuration and, where asked for, the report, which takes seconds.

    Returns:
        The content of ``sweep.json``.

    Raises:
        StorageError: a file could not be written, or the study cannot be read.
    """
    document = sweep_document(config, study, record, folder.folder)
    write_file(folder.folder, "sweep.json", as_json(document))
    if document["best"] is not None:
        write_file(folder.folder, "best_config.yaml", best_config(config, document["best"]).encode())
    if with_report:
        write_file(folder.folder, "report.html", sweep_report(study.study, document).encode())
    return document


def best_config(config: SweepConfig, best: Mapping[str, Any]) -> str:
    """The configuration of the best trial, in a form that ``gpo run`` accepts."""
    run = without_budget(config.space.config(best["params"]))
    head = f"# Trial {best['number']} of the sweep {config.study}: mean val {percent(best['val'])}.\n"
    return head + dump(run)


def sweep_report(study: Study, document: Mapping[str, Any]) -> str:
    """``report.html``: one page with Optuna's plots that needs no network.

    Args:
        document: the content of ``sweep.json``.
    """
    from plotly.io import to_html  # takes seconds to load

    figures: list[tuple[str, str]] = []
    for title, draw in _figures(study, document).items():
        try:
            figure = draw()
        except (ValueError, RuntimeError, ZeroDivisionError):
            continue  # too few trials for this plot
        # The first plot includes the script.
        script = "inline" if not figures else False
        figures.append((title, to_html(figure, full_html=False, include_plotlyjs=script, default_height="480px")))
    return _PAGES.get_template("sweep.html.j2").render(sweep=document, figures=figures, shown=shown)


def _figures(study: Study, document: Mapping[str, Any]) -> dict[str, Callable[[], Any]]:
    objectives = document["objectives"]
    several = len(objectives) > 1
    val: dict[str, Any] = {"target": lambda trial: trial.values[0], "target_name": "val"} if several else {}
    named: dict[str, Any] = val or {"target_name": "val"}
    # With a target, Optuna computes the importance for making it small.
    important: dict[str, Any] = {**named, **({"target": lambda trial: -trial.values[0]} if several else {})}
    figures: dict[str, Callable[[], Any]] = {
        "Optimization history": lambda: plots.plot_optimization_history(study, **named),
        "Parameter importance": lambda: plots.plot_param_importances(study, **important),
        "Parallel coordinates": lambda: plots.plot_parallel_coordinate(study, **named),
        "Slices": lambda: plots.plot_slice(study, **named),
        "When trials ran": lambda: plots.plot_timeline(study),
    }
    if several:
        names = list(objectives)
        figures["Pareto front"] = lambda: plots.plot_pareto_front(study, target_names=names)
    else:
        figures["Intermediate values"] = lambda: plots.plot_intermediate_values(study)
    return figures


def sweep_table(document: Mapping[str, Any]) -> FittingTable:
    """The best trials, for a terminal."""
    counts, objectives = document["trials"], document["objectives"]
    states = ", ".join(f"{counts[state]} {state}" for state in STATES.values() if counts[state])
    table = FittingTable(
        title=Text(f"{document['sweep_id']}: {document['status']} ({states})"), title_justify="left", title_style="bold"
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
    """A value of an option; fractions with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _short(path: str) -> str:
    """The last two parts of a path."""
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
