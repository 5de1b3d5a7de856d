"""Markdown tables of measurements, and their insertion between markers in a document."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.measuring.measurement import Measurement

Columns = Mapping[str, Callable[[Measurement], str]]
_MEGABYTE = 1_000_000


def _number(value: float | None, unit: str, decimals: int = 1) -> str:
    return "–" if value is None else f"{value:,.{decimals}f} {unit}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


NAME: Columns = {"": lambda row: row.name}
SPEED: Columns = {
    "Wall time": lambda row: _number(row.wall_s, "s"),
    "To the first call": lambda row: _number(row.to_first_call_s, "s"),
    "First to last call": lambda row: _number(row.calling_s, "s"),
    "Physical limit": lambda row: _number(row.physical_s, "s"),
    "Busy": lambda row: _percent(row.busy),
}
CALLS: Columns = {
    "LLM calls": lambda row: f"{row.calls:,}",
    "Duplicate task calls": lambda row: f"{row.duplicates:,}",
}
COST: Columns = {
    "CPU a call": lambda row: _number(row.cpu_ms_per_call, "ms", 2),
    "CPU in all": lambda row: _number(row.cpu_s, "s"),
    "Peak memory": lambda row: f"{row.peak_bytes / _MEGABYTE:,.0f} MB",
}
SCORES: Columns = {
    "val": lambda row: _percent(row.val),
    "test": lambda row: _percent(row.test),
}
REFUSALS: Columns = {
    "500s": lambda row: f"{row.failed_calls:,}",
    "429s": lambda row: _percent(row.refused),
    "429s, second half": lambda row: _percent(row.refused_late),
}
PROCESSES: Columns = {
    "Processes": lambda row: str(row.peak_processes),
    "Memory a trajectory": lambda row: f"{row.peak_bytes / _MEGABYTE / row.trajectories:,.2f} MB",
}


def table(measurements: Sequence[Measurement], *columns: Columns) -> str:
    """A Markdown table with one row per measurement, and the failures below it."""
    chosen = {title: cell for group in columns for title, cell in group.items()}
    lines = [_line(chosen), _line("---" if not title else "---:" for title in chosen)]
    lines += [_line(cell(row) for cell in chosen.values()) for row in measurements]
    lines += [f"\n{row.name} failed: {row.failure}" for row in measurements if row.failure]
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


class NoMarkers(ValueError):
    """A document lacks the markers for a table."""


def write_between(path: Path, name: str, text: str) -> None:
    """Replace the text between ``<!-- NAME -->`` and ``<!-- /NAME -->`` in a file.

    Raises:
        NoMarkers: the markers are not there, once each and in this order; the file is unchanged.
        OSError: the file cannot be read or written.
    """
    document = path.read_text(encoding="utf-8")
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = document.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed) or document.count(begin) > 1 or document.count(end) > 1:
        raise NoMarkers(f"{path} needs {begin} and, after it, {end}, once each")
    path.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}", encoding="utf-8")
