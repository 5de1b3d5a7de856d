"""What searches found: a file of JSON lines, a Markdown table and a figure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple


class Found(NamedTuple):
    """The prompt that a search ends with, and the task model calls until then."""

    prompt: str
    calls: int


@dataclass(frozen=True, slots=True)
class Job:
    """A search."""

    method: str
    structure: str
    budget: int
    seed: int


@dataclass(frozen=True, slots=True)
class Result:
    """A finished search.

    Attributes:
        score: the true score of the prompt that it found, in [0, 1].
        calls: of the task model.
    """

    job: Job
    score: float
    calls: int

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps({**asdict(self.job), "score": self.score, "calls": self.calls})

    @classmethod
    def from_json(cls, line: str) -> Result:
        """The result in a line. Raises ValueError, KeyError or TypeError for any other line."""
        data = json.loads(line)
        score, calls = data.pop("score"), data.pop("calls")
        return cls(Job(**data), score, calls)


def read_results(path: Path | None) -> dict[Job, Result]:
    """The results in a file; none if there is no file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path is not None and path.exists() else []
    return {result.job: result for result in map(Result.from_json, lines)}


class Cell(NamedTuple):
    """Mean and standard error over the seeds."""

    mean: float
    stderr: float

    @classmethod
    def of(cls, results: Iterable[Result], structure: str, method: str, budget: int) -> Cell | None:
        """The scores of these searches; ``None`` if there are none."""
        scores = [
            result.score
            for result in results
            if (result.job.structure, result.job.method, result.job.budget) == (structure, method, budget)
        ]
        if not scores:
            return None
        return cls(fmean(scores), stdev(scores) / sqrt(len(scores)) if len(scores) > 1 else 0.0)


def table(results: Sequence[Result], names: dict[str, str], structures: Sequence[str], budgets: Sequence[int]) -> str:
    """A Markdown table: structures and methods by budgets. The best mean of a structure and budget is bold.

    Args:
        names: method → its name in the table.
    """
    lines = [
        f"| Structure | Method | {' | '.join(f'{budget:,}' for budget in budgets)} |",
        f"| --- | --- |{' ---: |' * len(budgets)}",
    ]
    for structure in structures:
        cells = {method: [Cell.of(results, structure, method, budget) for budget in budgets] for method in names}
        best = [
            max((cell.mean for cell in column if cell), default=0.0) for column in zip(*cells.values(), strict=True)
        ]
        for index, (method, row) in enumerate(cells.items()):
            shown = " | ".join(map(_shown, row, best))
            lines.append(f"| {'' if index else structure} | {names[method]} | {shown} |")
    return "\n".join(lines)


def _shown(cell: Cell | None, best: float) -> str:
    if cell is None:
        return "–"
    mean = f"{cell.mean:.3f}"
    return f"{f'**{mean}**' if mean == f'{best:.3f}' else mean} ± {cell.stderr:.3f}"


_COLOURS = ("#d1242f", "#0969da", "#57606a", "#8250df", "#bf8700", "#1a7f37", "#0891b2", "#db2777")
_SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "gpo",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(
    path: Path, results: Sequence[Result], names: dict[str, str], structures: Sequence[str], budgets: Sequence[int]
) -> None:
    """Write an SVG file with a plot of the table for each structure. Raises OSError if it cannot be written."""
    # Imported late, since the other optimizers' environment lacks it.
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_SETTINGS):
        figure = Figure(figsize=(9, 6), layout="constrained")
        for index, structure in enumerate(structures):
            axes = figure.add_subplot(-(-len(structures) // 3), 3, index + 1)
            for (method, name), colour in zip(names.items(), _COLOURS, strict=False):
                cells = [(budget, Cell.of(results, structure, method, budget)) for budget in budgets]
                known = [(budget, *cell) for budget, cell in cells if cell]
                if known:
                    at, means, errors = zip(*known, strict=True)
                    width = 2.2 if method == next(iter(names)) else 1.1
                    axes.errorbar(
                        at, means, errors, label=name.strip("`"), color=colour, linewidth=width, marker="o", ms=3
                    )
            axes.set_xscale("log")
            axes.set_xticks(budgets, [f"{budget:,}" for budget in budgets], minor=False)
            axes.set_xticks([], minor=True)
            axes.tick_params(axis="x", labelrotation=45)
            axes.set_title(structure, fontsize=10)
        figure.supxlabel("task model calls")
        figure.supylabel("true score of the best prompt")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
        figure.savefig(path, metadata={"Date": None})
