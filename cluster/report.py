"""``report.html``: one self-contained page about a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2

from cluster.outputs import RunRecord, step_lines

# Everything that a model wrote or a file held is text here, never markup: autoescape is on for all values.
_PAGES = jinja2.Environment(
    loader=jinja2.PackageLoader("cluster", "templates"), autoescape=True, undefined=jinja2.StrictUndefined
)


def report(record: RunRecord, summary: Mapping[str, Any]) -> str:
    """The page: results, initial against best prompts, every candidate, and what the calls cost."""
    steps_by_trajectory: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for line in step_lines(record):
        steps_by_trajectory.setdefault((line["task"], line["seed"]), []).append(line)
    return _PAGES.get_template("report.html.j2").render(summary=summary, steps=steps_by_trajectory)
