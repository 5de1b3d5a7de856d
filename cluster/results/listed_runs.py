"""The runs, comparisons and sweeps in a folder, for ``gpo runs`` and ``gpo view``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from typing import Any

from rich.text import Text

from actors.folder import Folder
from cluster.display.console import FittingTable
from cluster.display.progress import duration, percent
from cluster.results.stored_run import NOT_AS_WRITTEN, json_object
from gpo.errors import ConfigError
from gpo.text import without_controls


@dataclass(frozen=True, slots=True)
class ListedRun:
    """A run, as its ``summary.json`` describes it.

    Attributes:
        name: of its folder.
        initial, best: mean ``test`` scores over the trajectories, or ``val`` scores before ``test`` is scored.
        started_at: ISO 8601; empty if unknown.
    """

    name: str
    status: str
    started_at: str
    tasks: tuple[str, ...]
    initial: float | None
    best: float | None
    calls: int
    usd: float
    wall_s: float

    def document(self) -> dict[str, Any]:
        """The run as JSON values."""
        return {**{name: getattr(self, name) for name in self.__dataclass_fields__}, "tasks": list(self.tasks)}


def listed_runs(parent: Folder) -> list[ListedRun]:
    """The runs in the folders directly below this one, the newest first; only their summaries are read.

    Raises:
        ConfigError: the folder cannot be read.
    """
    runs = [_listed(name, json_object(content)) for name, content in _contents(parent, "summary.json")]
    return sorted(runs, key=lambda run: run.started_at, reverse=True)


@dataclass(frozen=True, slots=True)
class ListedSweep:
    """A sweep, as its ``sweep.json`` describes it; ``best`` is the best trial's ``val``."""

    name: str
    status: str
    started_at: str
    tasks: tuple[str, ...]
    best: float | None
    trials: int
    calls: int


def listed_sweeps(parent: Folder) -> list[ListedSweep]:
    """The sweeps in the folders directly below this one, the newest first; only their ``sweep.json`` is read.

    Raises:
        ConfigError: the folder cannot be read.
    """
    known = {name: json_object(content) for name, content in _contents(parent, "sweep.json")}
    sweeps = [_listed_sweep(name, document) for name, document in known.items()]
    return sorted(sweeps, key=lambda sweep: sweep.started_at, reverse=True)


@dataclass(frozen=True, slots=True)
class ListedComparison:
    """A comparison: a run for each method, named after its folder.

    Attributes:
        is_whole: whether ``comparison.json`` names methods, and each has a run.
    """

    name: str
    methods: tuple[ListedRun, ...]
    is_whole: bool

    @property
    def status(self) -> str:
        """``completed`` if every method is; else the status of the first that is not; ``unknown`` if not whole."""
        if not self.is_whole:
            return "unknown"
        return next((run.status for run in self.methods if run.status != "completed"), "completed")

    @property
    def started_at(self) -> str:
        """ISO 8601; empty if unknown."""
        return min((run.started_at for run in self.methods if run.started_at), default="")

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of all methods."""
        return tuple(dict.fromkeys(task for run in self.methods for task in run.tasks))

    @property
    def calls(self) -> int:
        """Calls of all methods."""
        return sum(run.calls for run in self.methods)


def listed_comparisons(parent: Folder) -> list[ListedComparison]:
    """The comparisons in the folders directly below this one, the newest first.

    Raises:
        ConfigError: a folder cannot be read.
    """
    comparisons = []
    for name, content in _contents(parent, "comparison.json"):
        methods = json_object(content).get("methods")
        rows = methods if isinstance(methods, list) else []
        order = [row.get("name") if isinstance(row, dict) else None for row in rows]
        # Only folders that are there: a name in a file could lead anywhere.
        known = {run.name: run for run in listed_runs(parent / name)}
        found = tuple(known[method] for method in order if isinstance(method, str) and method in known)
        comparisons.append(ListedComparison(without_controls(name), found, 0 < len(found) == len(order)))
    return sorted(comparisons, key=lambda comparison: comparison.started_at, reverse=True)


def _contents(parent: Folder, name: str) -> Iterator[tuple[str, bytes]]:
    """The folders directly below this one that have a file of this name, and its content."""
    if parent.local is not None and not parent.local.is_dir():
        raise ConfigError("DIR", f"there is no folder {parent.url!r}", "name a folder that contains runs")
    try:
        for folder in parent.names():
            with suppress(NotADirectoryError, IsADirectoryError):  # a file, or something else of that name
                if content := (parent / folder).read(name):
                    yield folder, content
    except (OSError, ImportError, ValueError) as error:
        raise ConfigError("DIR", f"{parent.url!r} cannot be read ({error})", "name a folder or fsspec URL") from None


def _listed_sweep(name: str, known: Mapping[str, Any]) -> ListedSweep:
    best, spent, population = (_section(known, part) for part in ("best", "spent", "population"))
    tasks, rows = population.get("tasks"), known.get("all")
    return ListedSweep(
        name=without_controls(name),
        status=without_controls(str(known.get("status") or "unknown")),
        started_at=str(known.get("started_at") or ""),
        tasks=tuple(without_controls(str(task)) for task in tasks) if isinstance(tasks, list) else (),
        best=_number(best, "val") if best.get("val") is not None else None,
        trials=len(rows) if isinstance(rows, list) else 0,
        calls=int(_number(spent, "calls")),
    )


def _section(known: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = known.get(name)
    return value if isinstance(value, dict) else {}


def _listed(name: str, known: Mapping[str, Any]) -> ListedRun:
    spent = _section(known, "spent")
    rows = known.get("trajectories")
    rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    initial, best = _means(rows)
    return ListedRun(
        name=without_controls(name),
        status=without_controls(str(known.get("status") or "unknown")),
        started_at=str(known.get("started_at") or ""),
        tasks=tuple(dict.fromkeys(without_controls(str(row.get("task"))) for row in rows)),
        initial=initial,
        best=best,
        calls=int(_number(spent, "calls")),
        usd=_number(spent, "usd"),
        wall_s=_number(known, "wall_s"),
    )


def _means(rows: list[dict[str, Any]]) -> tuple[float | None, float | None]:
    """The means of the initial and the best prompts, both on the same split."""
    for split in ("test", "val"):
        initial, best = (list(_values(rows, which, split)) for which in ("initial", "best"))
        if rows and len(initial) == len(best) == len(rows):
            return sum(initial) / len(rows), sum(best) / len(rows)
    return None, None


def _values(rows: list[dict[str, Any]], which: str, split: str) -> Iterator[float]:
    for row in rows:
        try:
            yield float(row[which][split])
        except NOT_AS_WRITTEN:
            continue


def _number(known: Any, name: str) -> float:
    try:
        value = float(known[name])
    except NOT_AS_WRITTEN:
        return 0.0
    return value if isfinite(value) else 0.0


def runs_table(runs: list[ListedRun]) -> FittingTable:
    """A line for each run."""
    table = FittingTable(caption="Scores: means over trajectories, on test if it is scored, else on val.")
    for heading in ("Run", "Started", "Status", "Tasks", "Score", "Calls", "US$", "Time"):
        right = heading in ("Score", "Calls", "US$", "Time")
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for run in runs:
        tasks = ", ".join(run.tasks[:3]) + (f" and {len(run.tasks) - 3} more" if len(run.tasks) > 3 else "")
        score = f"{percent(run.initial)} → {percent(run.best)}"
        started = run.started_at[:16].replace("T", " ")
        cells = (run.name, started, run.status, tasks, score, f"{run.calls:,}", f"{run.usd:.2f}", duration(run.wall_s))
        table.add_row(*map(Text, cells))
    return table
