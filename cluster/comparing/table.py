"""The tables of a comparison, for the terminal and as files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich import box
from rich.text import Text

from actors.folder import Folder
from cluster.comparing.comparison import Comparison, MethodRun, comparison_document
from cluster.display.console import FittingTable
from cluster.display.progress import duration, percent, percent_range
from cluster.results.averages import ALL, Spread, alone, family_spread
from cluster.results.outputs import as_json
from cluster.runs.run_folder import write_file
from gpo.intervals import LEVEL

_FILES = {"comparison.md": "table", "comparison.json": "figures"}
_NAME_WIDTH = 24
"""Most characters of the first column, where columns are divided among tables."""


@dataclass(frozen=True, slots=True)
class _Grid:
    """A heading, and rows with as many cells; a line separates the last ``num_averages`` rows.

    A cell has one or two lines. Where cells have only one, the second line follows in brackets.
    """

    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    num_averages: int = 0

    def width(self, column: int) -> int:
        return max(len(line) for row in (self.heading, *self.rows) for line in row[column].split("\n"))

    def with_columns(self, columns: Sequence[int]) -> _Grid:
        def chosen(cells: Sequence[str]) -> tuple[str, ...]:
            return tuple(cells[column] for column in (0, *columns))

        return _Grid(chosen(self.heading), tuple(map(chosen, self.rows)), self.num_averages)

    def within(self, width: int) -> list[_Grid]:
        """The columns divided among grids of at most this width; each repeats the first column."""
        groups: list[list[int]] = []
        free = 0
        for column in range(1, len(self.heading)):
            needed = self.width(column) + 1
            if not groups or needed > free:
                groups.append([])
                free = width - min(self.width(0), _NAME_WIDTH) - 3  # the box has an edge on either side
            groups[-1].append(column)
            free -= needed
        return [self.with_columns(group) for group in groups]


def comparison_tables(comparison: Comparison, width: int) -> list[FittingTable]:
    """Tables for a terminal of this width: one of the methods, and where there are several tasks, others by task."""
    tables = [_table(f"{comparison.run_id}: {comparison.status}", _overview(comparison))]
    tables[0].caption = Text(
        f"Below the scores: {100 * LEVEL:.0f} % intervals. "
        "The best prompts were chosen by val, so val is too high on average; test is the fair number."
    )
    if len(comparison.tasks) > 1:
        tables += [_table("Task by task, on test", grid) for grid in _by_task(comparison).within(width)]
    return tables


def comparison_markdown(comparison: Comparison) -> str:
    """The content of ``comparison.md``. No cell holds text from a model or a data file."""
    return (
        "\n\n".join(
            (
                f"# {comparison.run_id}: {comparison.status}",
                f"Scores are percentages: means over tasks, then over seeds ({_num_seeds(comparison)} unless stated "
                f"otherwise), with {100 * LEVEL:.0f} % intervals for new examples and new seeds. `initial` is on "
                "`test`. The best prompts were chosen by their scores on `val`, so these are too high on average; "
                "`test` is the fair number.",
                _markdown(_overview(comparison)),
                f"Best prompts on `test`, task by task; “{ALL}” and families are means over tasks.",
                _markdown(_by_task(comparison)),
            )
        )
        + "\n"
    )


def save_comparison(comparison: Comparison, folder: Folder) -> list[str]:
    """Write the tables and their data; returns a line for each file.

    Raises:
        StorageError: a file could not be written.
    """
    contents = {
        "comparison.json": as_json(comparison_document(comparison)),
        "comparison.md": comparison_markdown(comparison).encode(),
    }
    for name, content in contents.items():
        write_file(folder, name, content)
    return [f"{what + ':':<9} {folder.path(name)}" for name, what in _FILES.items()]


def _num_seeds(comparison: Comparison) -> int:
    return len(comparison.methods[0].config.run.seeds)


def _shown(known: Spread | None, num_seeds: int) -> str:
    if known is None:
        return "–"
    fewer = f"{len(known.by_seed)} of {num_seeds}" if len(known.by_seed) < num_seeds else ""
    second = ", ".join(filter(None, (percent_range(known.interval), fewer)))
    return f"{percent(known.mean)}\n{second}" if second else percent(known.mean)


def _overview(comparison: Comparison) -> _Grid:
    """One row per method, the best on ``test`` first."""
    columns: dict[str, Callable[[MethodRun], str]] = {
        "Method": _name,
        "val": lambda run: _score(comparison, run, "best", "val"),
        "test": lambda run: _score(comparison, run, "best", "test"),
        "initial": lambda run: percent(mean.mean if (mean := _known(comparison, run, "initial", "test")) else None),
        "Prompts": lambda run: f"{run.num_prompts:,}",
        "Task calls": lambda run: f"{run.record.spending.task.requests:,}",
        "Opt. calls": lambda run: f"{run.record.spending.optimizer.requests:,}",
        "Judge calls": lambda run: f"{run.record.spending.judge.requests:,}",
        "Tokens": lambda run: _short(run.num_tokens),
        "US$": lambda run: f"{run.total.cost_usd:.2f}",
        "Time": lambda run: duration(run.record.wall_s),
    }
    if not any(run.record.spending.judge.requests for run in comparison.methods):
        del columns["Judge calls"]
    if not any(run.total.cost_usd for run in comparison.methods):
        del columns["US$"]

    def rank(run: MethodRun) -> float:
        best = _known(comparison, run, "best", "test")
        return -best.mean if best else 1.0

    return _Grid(
        tuple(columns),
        tuple(tuple(cell(run) for cell in columns.values()) for run in sorted(comparison.methods, key=rank)),
    )


def _name(run: MethodRun) -> str:
    return run.name if run.record.status == "completed" else f"{run.name} ({run.record.status})"


def _known(comparison: Comparison, run: MethodRun, which: str, split: str) -> Spread | None:
    return family_spread(comparison.families[-1], run.record.checkpoints, which=which, split=split)


def _score(comparison: Comparison, run: MethodRun, which: str, split: str) -> str:
    return _shown(_known(comparison, run, which, split), _num_seeds(comparison))


def _short(count: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= 10 * size:
            return f"{count / size:,.0f} {unit}"
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return str(count)


def _by_task(comparison: Comparison) -> _Grid:
    """``test`` scores of the best prompts: a row for each task and family, a column for each method."""
    families = comparison.families if len(comparison.tasks) > 1 else ()
    rows = [
        (
            family.name,
            *(
                _shown(
                    family_spread(family, run.record.checkpoints, which="best", split="test"), _num_seeds(comparison)
                )
                for run in comparison.methods
            ),
        )
        for family in (*(alone(task.name) for task in comparison.tasks), *families)
    ]
    return _Grid(("test", *(run.name for run in comparison.methods)), tuple(rows), len(families))


def _table(title: str, grid: _Grid) -> FittingTable:
    table = FittingTable(
        title=Text(title),
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        caption_style="dim",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column(Text(grid.heading[0]), overflow="fold", min_width=min(grid.width(0), _NAME_WIDTH))
    for name in grid.heading[1:]:
        table.add_column(Text(name.replace(" ", "\n")), justify="right", no_wrap=True)
    for index, row in enumerate(grid.rows):
        table.add_row(*map(Text, row), end_section=index == len(grid.rows) - grid.num_averages - 1)
    return table


def _markdown(grid: _Grid) -> str:
    aligned = ["---", *["---:"] * (len(grid.heading) - 1)]
    rows = [[_in_one_line(cell) for cell in row] for row in grid.rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (grid.heading, aligned, *rows))


def _in_one_line(cell: str) -> str:
    first, _, second = cell.partition("\n")
    return f"{first} ({second})" if second else first
