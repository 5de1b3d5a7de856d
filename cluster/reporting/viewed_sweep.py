"""A sweep as ``gpo view`` shows it, from its ``sweep.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actors.folder import Folder
from cluster.reporting.curves import data_url, trials_svg
from cluster.results.stored_run import NOT_AS_WRITTEN, json_object

PLOTS_POLICY = (
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'; "
    "img-src data: blob:; font-src data:; frame-ancestors 'self'"
)
"""For ``report.html`` of a sweep, whose plots need scripts. In the sandbox, these can reach nothing."""


@dataclass(frozen=True, slots=True)
class ViewedSweep:
    """A sweep.

    Attributes:
        document: the content of ``sweep.json``.
        history: a plot of the trials' ``val``, as a ``data:`` URL; empty without a finished trial.
        has_plots: whether ``report.html`` with Optuna's plots is there; a sweep writes it at its end.
    """

    document: Mapping[str, Any]
    trials: list[Trial]
    history: str
    has_plots: bool


@dataclass(frozen=True, slots=True)
class Trial:
    """A line of the table; ``val`` in [0, 1], ``None`` before the first score."""

    number: int
    state: str
    val: float | None
    calls: int | None
    params: str
    error: str
    is_best: bool


def viewed_sweep(folder: Folder, names: list[str]) -> ViewedSweep:
    """Read a sweep; what is not as it was written is left out.

    Args:
        names: of the files in the folder.
    """
    document = json_object(folder.read("sweep.json"))
    best = _of(document.get("best"), "number")
    rows = document.get("all")
    trials = [trial for row in (rows if isinstance(rows, list) else []) if (trial := _trial(row, best))]
    values = [(trial.number, trial.val) for trial in trials if trial.val is not None and trial.state == "complete"]
    return ViewedSweep(document, trials, data_url(trials_svg(values)) if values else "", "report.html" in names)


def _of(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _trial(row: Any, best: Any) -> Trial | None:
    try:
        params = ", ".join(f"{path} = {value}" for path, value in row["params"].items())
        spent = row.get("spent")
        val = row.get("val")
        return Trial(
            int(row["number"]),
            str(row["state"]),
            None if val is None else float(val),
            int(spent[0]) if spent else None,
            params,
            str(row.get("error") or ""),
            row["number"] == best,
        )
    except NOT_AS_WRITTEN:
        return None
