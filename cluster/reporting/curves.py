"""Plots of a task's trajectories that suit light and dark pages.

Matplotlib draws them as SVG, some 20 kB per task. They need no script and can be printed; a plotting library in the
browser would add megabytes to every report.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from io import StringIO
from itertools import accumulate
from math import nan
from threading import Lock
from typing import TYPE_CHECKING, Any

from actors.search import SearchKey
from cluster.display.progress import percent
from gpo.checkpoint import Checkpoint
from gpo.intervals import interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK = "#010203"
"""Placeholder for the page's text colour, which differs between light and dark."""
_STYLE = (
    "<style>svg{color:#1f2328;font-family:system-ui,sans-serif}"
    "@media (prefers-color-scheme:dark){svg{color:#e6edf3}}</style>"
)
_COLOURS = ("#2f81f7", "#d97706", "#16a34a", "#db2777", "#8b5cf6", "#0891b2", "#a16207", "#64748b")
_LINES = ("-", "--", "-.", ":")
_NAMED = 8
"""With more trajectories, the plot and its description do not distinguish them."""
_SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "gpo",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "path.simplify": True,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
}

_DRAWING = Lock()
"""Matplotlib's settings are those of the whole process, and several runs may end at the same time."""

Curve = tuple[SearchKey, Checkpoint]


def curves_svg(curves: Sequence[Curve]) -> str:
    """A plot as SVG: the current prompt's ``val`` score after each step above, the step size below.

    The band around a curve is the 90 % interval. Dots show how many words changed in the
    accepted prompts.

    Args:
        curves: the trajectories of one task, at least one.
    """
    # Imported late, since loading it takes a second.
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with _DRAWING, rc_context(_SETTINGS):
        figure = Figure(figsize=(4.8, 3.7))
        figure.patch.set_alpha(0)
        scores, sizes = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        figure.subplots_adjust(left=0.12, right=0.98, top=0.97, bottom=0.12, hspace=0.12)
        for number, (key, checkpoint) in enumerate(curves):
            many = len(curves) > _NAMED
            colour = _COLOURS[0 if many else number]
            _draw_scores(scores, checkpoint, colour, _LINES[0 if many else number % 4], f"seed {key.seed}", many)
            _draw_changes(sizes, checkpoint, colour)
        for schedule in {_schedule(checkpoint) for _, checkpoint in curves}:
            if any(size == size for size in schedule):
                sizes.step(range(1, len(schedule) + 1), schedule, where="mid", color=_INK, linewidth=1)
        for axes in (scores, sizes):
            axes.patch.set_alpha(0)
            axes.grid(visible=True, color=_INK, alpha=0.12, linewidth=0.6)
        scores.set_ylabel("val, %")
        sizes.set_ylabel("words")
        sizes.set_ylim(bottom=0)
        sizes.set_xlabel("step")
        sizes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if len(curves) <= _NAMED:
            scores.legend(frameon=False, fontsize=8, loc="best")
        return _svg(figure)


def trials_svg(values: Sequence[tuple[int, float]]) -> str:
    """A plot as SVG: ``val`` of each trial of a sweep as a dot, and the best one so far as a line.

    Args:
        values: number and ``val`` of each trial, at least one.
    """
    # Imported late, since loading it takes a second.
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    numbers, vals = zip(*((number, 100 * val) for number, val in sorted(values)), strict=True)
    with _DRAWING, rc_context(_SETTINGS):
        figure = Figure(figsize=(7.2, 3))
        figure.patch.set_alpha(0)
        axes = figure.subplots()
        figure.subplots_adjust(left=0.09, right=0.98, top=0.97, bottom=0.16)
        axes.patch.set_alpha(0)
        axes.grid(visible=True, color=_INK, alpha=0.12, linewidth=0.6)
        axes.plot(numbers, vals, "o", color=_COLOURS[0], markersize=4, alpha=0.7, label="trial")
        axes.step(numbers, list(accumulate(vals, max)), where="post", color=_COLOURS[1], label="best so far")
        axes.set_xlabel("trial")
        axes.set_ylabel("val, %")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.legend(frameon=False, fontsize=8, loc="lower right")
        return _svg(figure)


def data_url(svg: str) -> str:
    """An address that contains the plot."""
    return "data:image/svg+xml;base64," + b64encode(svg.encode()).decode()


def _svg(figure: Figure) -> str:
    drawn = StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    svg = drawn.getvalue().replace(_INK, "currentColor")
    head, opening, body = svg[svg.index("<svg") :].partition(">")
    return head + opening + _STYLE + body


def curves_in_words(curves: Sequence[Curve]) -> str:
    """A description of the plot for readers who cannot see it."""
    scores = [
        (key, checkpoint.trajectory.initial.score.mean, checkpoint.trajectory.current.score.mean)
        for key, checkpoint in curves
    ]
    if len(scores) > _NAMED:
        firsts, lasts = sorted(row[1] for row in scores), sorted(row[2] for row in scores)
        return (
            f"val scores of {len(scores)} trajectories: {percent(firsts[0])} to {percent(firsts[-1])} % at the start, "
            f"{percent(lasts[0])} to {percent(lasts[-1])} % after the last step"
        )
    parts = (f"seed {key.seed} from {percent(first)} to {percent(last)} %" for key, first, last in scores)
    return f"val scores after each step: {', '.join(parts)}"


def _draw_scores(axes: Axes, checkpoint: Checkpoint, colour: str, line: str, label: str, many: bool) -> None:
    trajectory = checkpoint.trajectory
    currents = [trajectory.initial, *(step.successor for step in trajectory.steps)]
    steps = range(len(currents))
    means = [100 * current.score.mean for current in currents]
    intervals = [interval(current.score) for current in currents]
    axes.plot(
        steps, means, line, color=colour, alpha=0.5 if many else 1.0, linewidth=1.0 if many else 1.6,
        marker="o", markersize=1.5 if many else 3, label=label,
    )  # fmt: skip
    low, high = zip(*intervals, strict=True)
    axes.fill_between(
        steps,
        [100 * end for end in low],
        [100 * end for end in high],
        color=colour,
        alpha=0.03 if many else 0.15,
        linewidth=0,
    )


def _draw_changes(axes: Axes, checkpoint: Checkpoint, colour: str) -> None:
    made = [
        (step.index + 1, step.successor.edit_distance)
        for step in checkpoint.trajectory.steps
        if any(step.successor.prompt == candidate.prompt for candidate in step.candidates)
    ]
    if made:
        axes.plot(*zip(*made, strict=True), "o", color=colour, markersize=3, alpha=0.6)


def _schedule(checkpoint: Checkpoint) -> tuple[float, ...]:
    return tuple(nan if step.step_size is None else step.step_size for step in checkpoint.trajectory.steps)
