"""``report.html`` of a sweep: one page that needs no network, with Optuna's plots in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jinja2
import optuna.visualization as plots
from optuna.study import Study

from cluster.sweep.results import shown

_PAGES = jinja2.Environment(
    loader=jinja2.PackageLoader("cluster.reporting", "templates"), autoescape=True, undefined=jinja2.StrictUndefined
)


def sweep_report(study: Study, document: Mapping[str, Any]) -> str:
    """The page.

    Args:
        document: the content of ``sweep.json``.
    """
    from plotly.io import to_html  # seconds to load, and only needed here

    figures: list[tuple[str, str]] = []
    for title, draw in _figures(study, document).items():
        try:
            figure = draw()
        except (ValueError, RuntimeError, ZeroDivisionError):
            continue  # too few trials for this one
        # The first brings the script along.
        script = "inline" if not figures else False
        figures.append((title, to_html(figure, full_html=False, include_plotlyjs=script, default_height="480px")))
    return _PAGES.get_template("sweep.html.j2").render(sweep=document, figures=figures, shown=shown)


def _figures(study: Study, document: Mapping[str, Any]) -> dict[str, Callable[[], Any]]:
    objectives = document["objectives"]
    several = len(objectives) > 1
    val: dict[str, Any] = {"target": lambda trial: trial.values[0], "target_name": "val"} if several else {}
    named: dict[str, Any] = val or {"target_name": "val"}
    # Importance is for making a target small.
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
