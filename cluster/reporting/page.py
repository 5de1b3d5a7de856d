"""``report.html``: a self-contained page about a run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any
from urllib.parse import quote, urlsplit

from actors.search import SearchKey
from cluster.reporting.candidates import candidate_rows
from cluster.reporting.curves import Curve, curves_in_words, curves_svg, data_url
from cluster.reporting.diff import Segment, word_diff
from cluster.reporting.examples import Answers, example_data
from cluster.reporting.outcomes import Outcomes, outcomes
from cluster.reporting.rendering import Live, as_data, rendered
from cluster.results.differences import difference_summary
from cluster.results.run_record import RunRecord
from cluster.results.status import RunStatus
from gpo.checkpoint import Checkpoint

_ADDRESS = re.compile(r"(?m)^(?P<before>\s*(?:- )?base_url: *)(?P<url>\S.*)$")


@dataclass(frozen=True, slots=True)
class InitialAndBest:
    """How the initial and the best prompt of a trajectory differ: their words, and the fixed and broken examples."""

    diff: list[Segment]
    outcomes: list[Outcomes]


@dataclass(frozen=True, slots=True)
class Plot:
    """The curves of a task, as an address of their picture, with a description in words."""

    task: str
    url: str
    description: str


@dataclass(frozen=True, slots=True)
class Progress:
    """What ``gpo view`` shows of a run in addition to its report.

    Attributes:
        calls_per_s: lately; ``None`` if unknown.
        budget: each bound: what it limits, the amount so far, and the bound.
    """

    status: RunStatus
    calls_per_s: float | None
    budget: Sequence[tuple[str, float, float]]


def report(
    record: RunRecord,
    summary: Mapping[str, Any],
    answers: Answers | None = None,
    *,
    live: Live | None = None,
    has_answers: bool = False,
    progress: Progress | None = None,
) -> str:
    """Render the page: results, curves, initial and best prompts, all candidates, cost of calls, configuration.

    Its content security policy forbids network requests, except to the server of ``gpo view``, and other scripts.

    Args:
        answers: as from ``page_answers``, if some are recorded.
        live, progress: for a page of ``gpo view``. It has no curves, candidates and answers, but loads them.
        has_answers: whether a live page can load answers.
    """
    data: dict[str, Any] = {"live": live.run} if live else report_data(record, answers)
    return rendered(
        "report.html.j2",
        ("page.js", "candidates.js", "examples.js"),
        live,
        summary=summary,
        progress=progress,
        prompts={(key.task, key.seed): _initial_and_best(checkpoint) for key, checkpoint in record.checkpoints.items()},
        differences=difference_summary(record),
        plots=_plots(record, live),
        num_prompts=sum(len(checkpoint.trajectory.history) for checkpoint in record.checkpoints.values()),
        config=without_secrets(record.config),
        has_answers=has_answers or bool(answers),
        data=as_data(data),
    )


def report_data(record: RunRecord, answers: Answers | None = None) -> dict[str, Any]:
    """The data for the scripts of the page: see ``candidate_rows`` and ``example_data``."""
    return {**candidate_rows(record), "examples": example_data(sorted(record.checkpoints), record, answers or {})}


def _initial_and_best(checkpoint: Checkpoint) -> InitialAndBest:
    initial, best = checkpoint.trajectory.initial, checkpoint.trajectory.best
    return InitialAndBest(
        word_diff(initial.prompt.text, best.prompt.text),
        outcomes(checkpoint),
    )


def _plots(record: RunRecord, live: Live | None) -> list[Plot]:
    by_task = {task: list(curves) for task, curves in groupby(sorted(record.checkpoints.items()), key=_task)}
    ordered = dict.fromkeys(key.task for key in record.keys if key.task in by_task)
    return [Plot(task, _address(by_task[task], live), curves_in_words(by_task[task])) for task in ordered]


def _address(curves: Sequence[Curve], live: Live | None) -> str:
    """The plot itself; in a live page, where it is, with an end that differs after each step."""
    if live is None:
        return data_url(curves_svg(curves))
    steps = "-".join(str(len(checkpoint.trajectory.steps)) for _, checkpoint in curves)
    return f"/curves/{quote(curves[0][0].task, safe='')}/{live.run}?{steps[:1000]}"


def _task(curve: tuple[SearchKey, Checkpoint]) -> str:
    return curve[0].task


def without_secrets(config: str) -> str:
    """The configuration with URLs reduced to host and path, since other parts may contain a password or a key."""

    def shown(found: re.Match[str]) -> str:
        try:
            url = urlsplit(found["url"].strip("'\" "))
            host = f"{url.hostname or ''}:{url.port}" if url.port else url.hostname or ""
        except ValueError:
            return f"{found['before']}(not shown)"
        return f"{found['before']}{url.scheme}://{host}{url.path}" if host else found[0]

    return _ADDRESS.sub(shown, config)
