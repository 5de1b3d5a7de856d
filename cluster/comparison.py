"""What a comparison of methods has come to: the table, for the terminal and as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from actors.folder import Folder
from cluster.averages import ALL, Family, Spread, alone, families_of, family_spread, mean_scores
from cluster.config import RunConfig
from cluster.outputs import RunRecord, as_json
from cluster.progress import duration, percent
from gpo.models import Usage
from gpo.tasks import Task

_FILES = {"comparison.md": "table", "comparison.json": "figures"}


@dataclass(frozen=True, slots=True)
class MethodRun:
    """One method's run."""

    name: str
    config: RunConfig
    record: RunRecord


@dataclass(frozen=True, slots=True)
class Comparison:
    """The methods' runs, on the same tasks and seeds."""

    run_id: str
    tasks: tuple[Task, ...]
    methods: Sequence[MethodRun] = field(default_factory=list[MethodRun])

    @property
    def status(self) -> str:
        """``completed`` where every method is; else the status of the first that is not."""
        return next((run.record.status for run in self.methods if run.record.status != "completed"), "completed")

    @property
    def families(self) -> tuple[Family, ...]:
        """What is averaged; the last one is all tasks."""
        return families_of(self.tasks)


def comparison_document(comparison: Comparison) -> dict[str, Any]:
    """The content of ``comparison.json``. Scores are in [0, 1]; ``stderr`` is over seeds, null for a single one."""
    return {
        "run_id": comparison.run_id,
        "status": comparison.status,
        "tasks": [task.name for task in comparison.tasks],
        "methods": [_method(comparison, run) for run in comparison.methods],
    }


def _method(comparison: Comparison, run: MethodRun) -> dict[str, Any]:
    ends = run.record.checkpoints

    *groups, everything = comparison.families
    spending = run.record.spending
    return {
        "name": run.name,
        "status": run.record.status,
        "seeds": list(run.config.run.seeds),
        "errors": {str(key): error for key, error in run.record.errors.items()},
        **mean_scores(everything, ends),
        "families": {group.name: mean_scores(group, ends) for group in groups},
        "tasks": {task.name: mean_scores(alone(task.name), ends) for task in comparison.tasks},
        "prompts": _num_prompts(run.record),
        "llm": {role: asdict(usage) for role, usage in run.record.usage_by_role().items()},
        "calls": _total(spending.task, spending.optimizer, spending.judge).requests,
        "tokens": _tokens(run.record),
        "wall_s": round(run.record.wall_s, 3),
    }


def _num_prompts(record: RunRecord) -> int:
    return sum(len(checkpoint.trajectory.history) for checkpoint in record.checkpoints.values())


def _total(*usages: Usage) -> Usage:
    return sum(usages, start=Usage())


def _tokens(record: RunRecord) -> int:
    total = _total(*record.usage_by_role().values())
    return total.prompt_tokens + total.completion_tokens


def _shown(known: Spread | None) -> str:
    if known is None:
        return "–"
    spread = f"±{100 * known.stderr:.1f}" if known.stderr is not None else ""
    return f"{100 * known.mean:.1f}{spread}"


def _mean(known: Spread | None) -> str:
    return percent(known.mean if known else None)


def _overview(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """One row per method, best on ``test`` first."""
    everything = comparison.families[-1]
    heading = ["Method", "val", "test", "initial", "Prompts", "Task calls", "Opt. calls", "Tokens", "Time"]
    costs = any(_cost(run.record) for run in comparison.methods)
    rows: list[tuple[float, list[str]]] = []
    for run in comparison.methods:
        ends, usage = run.record.checkpoints, run.record.usage_by_role()
        best = family_spread(everything, ends, which="best", split="test")
        row = [
            run.name if run.record.status == "completed" else f"{run.name} ({run.record.status})",
            _shown(family_spread(everything, ends, which="best", split="val")),
            _shown(best),
            _mean(family_spread(everything, ends, which="initial", split="test")),
            f"{_num_prompts(run.record):,}",
            f"{usage['task'].requests:,}",
            f"{usage['optimizer'].requests:,}",
            _short(_tokens(run.record)),
            duration(run.record.wall_s),
            *([f"{_cost(run.record):.2f}"] if costs else []),
        ]
        rows.append((best.mean if best else -1.0, row))
    return [*heading, *(["US$"] if costs else [])], [row for _, row in sorted(rows, key=lambda row: -row[0])]


def _short(count: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= 10 * size:
            return f"{count / size:,.0f} {unit}"
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return str(count)


def _cost(record: RunRecord) -> float:
    return _total(*record.usage_by_role().values()).cost_usd


def _by_task(comparison: Comparison) -> tuple[list[str], list[list[str]], int]:
    """``test`` of the best prompts, one row per task and family, one column per method; and how many are families."""
    families = comparison.families if len(comparison.tasks) > 1 else ()

    def row(name: str, known: Sequence[Spread | None]) -> list[str]:
        return [name, *map(_shown, known)]

    ends = [run.record.checkpoints for run in comparison.methods]
    rows = [
        row(task.name, [family_spread(alone(task.name), one, which="best", split="test") for one in ends])
        for task in comparison.tasks
    ]
    rows += [
        row(family.name, [family_spread(family, one, which="best", split="test") for one in ends])
        for family in families
    ]
    return ["test", *(run.name for run in comparison.methods)], rows, len(families)


def comparison_tables(comparison: Comparison) -> list[Table]:
    """For the terminal: methods in all, and task by task."""
    heading, rows = _overview(comparison)
    tables = [_table(f"{comparison.run_id}: {comparison.status}", heading, rows)]
    if len(comparison.tasks) > 1:
        heading, rows, num_families = _by_task(comparison)
        tables.append(_table("Task by task", heading, rows, num_families))
    return tables


def _table(title: str, heading: Sequence[str], rows: Sequence[Sequence[str]], num_averages: int = 0) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index, name in enumerate(heading):
        table.add_column(Text(name), justify="left" if index == 0 else "right", overflow="fold")
    for index, row in enumerate(rows):
        table.add_row(*map(Text, row), end_section=index == len(rows) - num_averages - 1)
    return table


def comparison_markdown(comparison: Comparison) -> str:
    """The content of ``comparison.md``."""
    num_seeds = len(comparison.methods[0].config.run.seeds)
    overview, by_task = _overview(comparison), _by_task(comparison)[:2]
    return (
        "\n\n".join(
            (
                f"# {comparison.run_id}: {comparison.status}",
                f"Scores are percentages: means over tasks, then over seeds ({num_seeds}), with the standard error "
                "over seeds behind ±; `initial` is on `test`. Only `val` chose; `test` was scored for initial and best "
                "prompts.",
                _markdown(*overview),
                f"Best prompts on `test`, task by task; “{ALL}” and families are means over tasks.",
                _markdown(*by_task),
            )
        )
        + "\n"
    )


def _markdown(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    aligned = ["---", *["---:"] * (len(heading) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heading, aligned, *rows))


def save_comparison(comparison: Comparison, folder: Folder) -> list[str]:
    """Write the table and its figures; their paths, each with what it holds.

    Raises:
        OSError: a file could not be written.
    """
    folder.write("comparison.md", comparison_markdown(comparison).encode())
    folder.write("comparison.json", as_json(comparison_document(comparison)))
    return [f"{what + ':':<9} {folder.path(name)}" for name, what in _FILES.items()]
