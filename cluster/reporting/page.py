"""``report.html``: a self-contained page about a run."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from itertools import groupby
from typing import Any
from urllib.parse import urlsplit

import jinja2

from actors.search import SearchKey
from cluster.reporting.candidates import candidate_rows
from cluster.reporting.curves import curves_in_words, curves_svg
from cluster.reporting.diff import Segment, word_diff
from cluster.reporting.examples import Answers, example_data
from cluster.reporting.outcomes import Outcomes, outcomes
from cluster.results.differences import difference_summary
from cluster.results.run_record import RunRecord
from gpo.checkpoint import Checkpoint

# Autoescape treats everything from models and files as text, never as markup. The template marks only our own style
# and script, and data without any "<", as safe.
_PAGES = jinja2.Environment(
    loader=jinja2.PackageLoader("cluster.reporting", "templates"), autoescape=True, undefined=jinja2.StrictUndefined
)
_ADDRESS = re.compile(r"(?m)^(?P<before>\s*(?:- )?base_url: *)(?P<url>\S.*)$")


@dataclass(frozen=True, slots=True)
class InitialAndBest:
    """How the initial and the best prompt of a trajectory differ: their words, and the fixed and broken examples."""

    diff: list[Segment]
    outcomes: list[Outcomes]


@dataclass(frozen=True, slots=True)
class Plot:
    """The curves of a task as a ``data:`` URL, with a description in words."""

    task: str
    url: str
    description: str


def report(
    record: RunRecord,
    summary: Mapping[str, Any],
    answers: Answers | None = None,
) -> str:
    """Render the page: results, curves, initial and best prompts, all candidates, cost of calls, configuration.

    Its content security policy forbids network requests, and scripts other than its own.

    Args:
        answers: as from ``page_answers``, if some are recorded.
    """
    style, script = _asset("report.css"), _script("page.js", "candidates.js", "examples.js")
    return _PAGES.get_template("report.html.j2").render(
        summary=summary,
        prompts={(key.task, key.seed): _initial_and_best(checkpoint) for key, checkpoint in record.checkpoints.items()},
        differences=difference_summary(record),
        plots=_plots(record),
        num_prompts=sum(len(checkpoint.trajectory.history) for checkpoint in record.checkpoints.values()),
        config=_without_secrets(record.config),
        has_answers=bool(answers),
        data=_as_data(
            {**candidate_rows(record), "examples": example_data(sorted(record.checkpoints), record, answers or {})}
        ),
        style=style,
        script=script,
        style_hash=_digest(style),
        script_hash=_digest(script),
    )


def _initial_and_best(checkpoint: Checkpoint) -> InitialAndBest:
    initial, best = checkpoint.trajectory.initial, checkpoint.trajectory.best
    return InitialAndBest(
        word_diff(initial.prompt.text, best.prompt.text),
        outcomes(checkpoint),
    )


def _plots(record: RunRecord) -> list[Plot]:
    by_task = {task: list(curves) for task, curves in groupby(sorted(record.checkpoints.items()), key=_task)}
    ordered = dict.fromkeys(key.task for key in record.keys if key.task in by_task)
    return [Plot(task, curves_svg(by_task[task]), curves_in_words(by_task[task])) for task in ordered]


def _task(curve: tuple[SearchKey, Checkpoint]) -> str:
    return curve[0].task


def _asset(name: str) -> str:
    return files("cluster.reporting").joinpath("templates", name).read_text(encoding="utf-8")


def _script(*names: str) -> str:
    """The scripts as one, whose names nothing else on the page can see."""
    return "\n".join(['"use strict";', "(() => {", *map(_asset, names), "})();"])


def _digest(text: str) -> str:
    """The hash by which the content security policy allows a script or style."""
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _as_data(document: Mapping[str, Any]) -> str:
    """JSON without ``<``, so that no ``</script>`` or ``<!--`` in it can end the element."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _without_secrets(config: str) -> str:
    """The configuration with URLs reduced to host and path, since other parts may contain a password or a key."""

    def shown(found: re.Match[str]) -> str:
        try:
            url = urlsplit(found["url"].strip("'\" "))
            host = f"{url.hostname or ''}:{url.port}" if url.port else url.hostname or ""
        except ValueError:
            return f"{found['before']}(not shown)"
        return f"{found['before']}{url.scheme}://{host}{url.path}" if host else found[0]

    return _ADDRESS.sub(shown, config)
