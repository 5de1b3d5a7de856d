"""``report.html``: one self-contained page about a run."""

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
from cluster.reporting.curves import curves_in_words, curves_picture
from cluster.reporting.diff import Segment, word_diff
from cluster.reporting.outcomes import Outcomes, outcomes
from cluster.results.run_record import RunRecord
from gpo.checkpoint import Checkpoint
from gpo.score import finite
from gpo.trajectory import Candidate

# Everything that a model wrote or a file held is text here, never markup: autoescape is on for all values. Our own
# style and script, and data without any "<", are marked as safe in the template.
_PAGES = jinja2.Environment(
    loader=jinja2.PackageLoader("cluster.reporting", "templates"), autoescape=True, undefined=jinja2.StrictUndefined
)
_ADDRESS = re.compile(r"(?m)^(?P<before>\s*(?:- )?base_url: *)(?P<url>\S.*)$")


@dataclass(frozen=True, slots=True)
class End:
    """A prompt at one end of a search: mean scores and their standard errors in [0, 1], ``None`` where unknown."""

    prompt: str
    val: tuple[float | None, float | None]
    test: tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class Ends:
    """The first and the best prompt of a search.

    Attributes:
        diff: from the one to the other.
        outcomes: of each example, split by split.
    """

    initial: End
    best: End
    diff: list[Segment]
    outcomes: list[Outcomes]


@dataclass(frozen=True, slots=True)
class Picture:
    """A task's curves; ``url`` is a ``data:`` URL, ``words`` says what can be seen."""

    task: str
    url: str
    words: str


def report(record: RunRecord, summary: Mapping[str, Any]) -> str:
    """The page: results, curves, initial against best prompts, every candidate, what calls cost, configuration.

    It asks no network for anything: its policy forbids that, and any script but its own.
    """
    style, script = (_asset(name) for name in ("report.css", "report.js"))
    return _PAGES.get_template("report.html.j2").render(
        summary=summary,
        ends={(key.task, key.seed): _ends(checkpoint) for key, checkpoint in record.checkpoints.items()},
        pictures=_pictures(record),
        tried=sum(len(checkpoint.trajectory.history) for checkpoint in record.checkpoints.values()),
        config=_without_secrets(record.config),
        data=_as_data(candidate_rows(record)),
        style=style,
        script=script,
        style_hash=_digest(style),
        script_hash=_digest(script),
    )


def _ends(checkpoint: Checkpoint) -> Ends:
    initial, best = checkpoint.trajectory.initial, checkpoint.trajectory.best
    return Ends(
        _end(initial, checkpoint),
        _end(best, checkpoint),
        word_diff(initial.prompt.text, best.prompt.text),
        outcomes(checkpoint),
    )


def _end(candidate: Candidate, checkpoint: Checkpoint) -> End:
    test = checkpoint.test.get(candidate.prompt.id)
    return End(
        candidate.prompt.text,
        (finite(candidate.score.mean), finite(candidate.score.stderr)),
        (finite(test.score.mean), finite(test.score.stderr)) if test else (None, None),
    )


def _pictures(record: RunRecord) -> list[Picture]:
    begun = sorted(record.checkpoints.items())
    by_task = {task: list(curves) for task, curves in groupby(begun, key=_task)}
    ordered = dict.fromkeys(key.task for key in record.keys if key.task in by_task)
    return [Picture(task, curves_picture(by_task[task]), curves_in_words(by_task[task])) for task in ordered]


def _task(curve: tuple[SearchKey, Checkpoint]) -> str:
    return curve[0].task


def _asset(name: str) -> str:
    return files("cluster.reporting").joinpath("templates", name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """By which the page's policy knows a script or style as its own."""
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _as_data(document: Mapping[str, Any]) -> str:
    """JSON that nothing in it can end early: no ``<`` is left, and so no ``</script>`` and no ``<!--``."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _without_secrets(config: str) -> str:
    """The configuration with addresses cut down to host and path: a password or a key may stand in the rest."""

    def shown(found: re.Match[str]) -> str:
        try:
            place = urlsplit(found["url"].strip("'\" "))
            host = f"{place.hostname or ''}:{place.port}" if place.port else place.hostname or ""
        except ValueError:
            return f"{found['before']}(not shown)"
        return f"{found['before']}{place.scheme}://{host}{place.path}" if host else found[0]

    return _ADDRESS.sub(shown, config)
