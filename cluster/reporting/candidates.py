"""Every candidate of a run, as the page's table takes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from actors.search import SearchKey
from cluster.reporting.diff import changes
from cluster.results.run_record import RunRecord
from gpo.checkpoint import Checkpoint
from gpo.score import finite
from gpo.trajectory import Candidate

_DECIMALS = 4
WENT_ON, BEST, DROPPED = 1, 2, 4
"""Marks of a candidate, added up: it became the current prompt, is the best of its trajectory, was given up early."""


def candidate_rows(record: RunRecord) -> dict[str, Any]:
    """``trajectories``, ``rows`` and ``notes``: what the script of the page knows.

    A row is a list, since there may be tens of thousands: number of the trajectory, step (0 is the initial prompt),
    ``val`` mean, standard error, words changed, words that might change, marks, prompt, row of the prompt that it was
    made from, places of the changes (see ``changes``), unscored examples. Unknown numbers are null.

    ``notes`` maps trajectory and step, as ``3/1``, to the reflection and summary that the step was made from.
    """
    rows: list[list[Any]] = []
    notes: dict[str, dict[str, str]] = {}
    keys = sorted(record.checkpoints)
    for number, key in enumerate(keys):
        checkpoint = record.checkpoints[key]
        rows += _rows(number, checkpoint, len(rows))
        notes.update(_notes(number, checkpoint))
    return {"trajectories": [_named(key) for key in keys], "rows": rows, "notes": notes}


def _named(key: SearchKey) -> list[Any]:
    return [key.task, key.seed]


def _rows(number: int, checkpoint: Checkpoint, first: int) -> Iterator[list[Any]]:
    trajectory = checkpoint.trajectory
    best, current, row_of = trajectory.best, trajectory.initial, {trajectory.initial.prompt: first}
    yield _row(number, 0, trajectory.initial, None, WENT_ON | (BEST if best is trajectory.initial else 0), None, [])
    for step in trajectory.steps:
        for candidate in step.candidates:
            row_of.setdefault(candidate.prompt, first + len(row_of))
            marks = WENT_ON if candidate.prompt == step.successor.prompt else 0
            marks |= BEST if candidate.prompt == best.prompt else 0
            marks |= DROPPED if candidate.is_dropped else 0
            places = changes(current.prompt.text, candidate.prompt.text)
            yield _row(number, step.index + 1, candidate, step.step_size, marks, row_of[current.prompt], places)
        current = step.successor


def _row(
    number: int,
    step: int,
    candidate: Candidate,
    step_size: int | None,
    marks: int,
    made_from: int | None,
    places: list[int],
) -> list[Any]:
    score = candidate.score
    return [
        number,
        step,
        _rounded(score.mean),
        _rounded(score.stderr),
        candidate.edit_distance,
        step_size,
        marks,
        candidate.prompt.text,
        made_from,
        places,
        score.num_unscored,
    ]


def _notes(number: int, checkpoint: Checkpoint) -> Iterator[tuple[str, dict[str, str]]]:
    for step in checkpoint.trajectory.steps:
        told = {"Reflection": step.direction.reflection, "Summary so far": step.direction.summary}
        if known := {title: text for title, text in told.items() if text}:
            yield f"{number}/{step.index + 1}", known


def _rounded(value: float) -> float | None:
    known = finite(value)
    return None if known is None else round(known, _DECIMALS)
