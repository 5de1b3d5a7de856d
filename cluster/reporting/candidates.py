"""The data of the page's table of candidates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from cluster.reporting.diff import changes
from cluster.results.intervals import rounded, score_interval
from cluster.results.run_record import RunRecord
from gpo.checkpoint import Checkpoint
from gpo.prompt import Prompt
from gpo.score import Score
from gpo.text import abridged
from gpo.trajectory import Candidate, Failure

_MAX_CHARACTERS = 500
"""Of each text of a failure; ``steps.jsonl`` has more."""
_MOST_KEPT = 50_000
ACCEPTED, BEST, DROPPED, FIRST = 1, 2, 4, 8
"""Bit flags of a candidate: it became the current prompt, is the best of its trajectory, was dropped early, is one of
the first prompts, which were not made from the initial one."""


def candidate_rows(record: RunRecord) -> dict[str, Any]:
    """``trajectories``, ``rows``, ``notes``, ``failures`` and ``shown`` for the page's script.

    A row is a list, since there may be tens of thousands: index of the trajectory, step (0 is the initial prompt),
    ``val`` mean, the two ends of its interval, words changed, words allowed to change, flags, prompt, row of the
    parent prompt, changes from the parent (see ``changes``), number of unscored examples, ID. Unknown values are null.

    ``notes`` maps trajectory and step (such as ``3/1``) to the reflection and summary that the step used, ``failures``
    to the texts of each wrong answer: input, right answer, answer, reason; ``shown`` to the rows of the earlier prompts
    that the optimizer model saw.
    """
    rows: list[list[Any]] = []
    notes: dict[str, dict[str, str]] = {}
    failures: dict[str, list[list[str]]] = {}
    shown: dict[str, list[int]] = {}
    keys = sorted(record.checkpoints)
    for number, key in enumerate(keys):
        checkpoint = record.checkpoints[key]
        row_of = _row_of(checkpoint, len(rows))
        rows += _rows(number, checkpoint, row_of)
        notes.update(_notes(number, checkpoint))
        for step in checkpoint.trajectory.steps:
            place, direction = f"{number}/{step.index + 1}", step.direction
            if direction.failures:
                failures[place] = [_texts(failure) for failure in direction.failures]
            if direction.neighbours:
                shown[place] = [row_of[one.prompt] for one in direction.neighbours if one.prompt in row_of]
    trajectories = [[key.task, key.seed] for key in keys]
    return {"trajectories": trajectories, "rows": rows, "notes": notes, "failures": failures, "shown": shown}


def _row_of(checkpoint: Checkpoint, first: int) -> dict[Prompt, int]:
    """The row of each prompt of a trajectory whose rows begin here."""
    row_of: dict[Prompt, int] = {}
    for candidate in checkpoint.trajectory.history:
        row_of.setdefault(candidate.prompt, first + len(row_of))
    return row_of


def _rows(number: int, checkpoint: Checkpoint, row_of: Mapping[Prompt, int]) -> Iterator[list[Any]]:
    trajectory = checkpoint.trajectory
    best, current = trajectory.best, trajectory.initial
    yield _row(number, 0, trajectory.initial, None, ACCEPTED | (BEST if best is trajectory.initial else 0), None, [])
    for step in trajectory.steps:
        for candidate in step.candidates:
            flags = ACCEPTED if candidate.prompt == step.successor.prompt else 0
            flags |= BEST if candidate.prompt == best.prompt else 0
            flags |= DROPPED if candidate.is_dropped else 0
            flags |= FIRST if step.has_first_prompts else 0
            changed = _changed(current.prompt.text, candidate.prompt.text)
            yield _row(number, step.index + 1, candidate, step.step_size, flags, row_of[current.prompt], changed)
        current = step.successor


def _row(
    number: int,
    step: int,
    candidate: Candidate,
    step_size: int | None,
    flags: int,
    parent: int | None,
    changed: list[int],
) -> list[Any]:
    score = candidate.score
    return [
        number,
        step,
        rounded(score.mean),
        _ends(score),
        candidate.edit_distance,
        step_size,
        flags,
        candidate.prompt.text,
        parent,
        changed,
        score.num_unscored,
        candidate.prompt.id,
    ]


# A page that renews itself asks for the same rows again and again.
_changed = lru_cache(_MOST_KEPT)(changes)


@lru_cache(_MOST_KEPT)
def _ends(score: Score) -> list[float] | None:
    known = score_interval(score)
    return [known["low"], known["high"]] if known else None


def _notes(number: int, checkpoint: Checkpoint) -> Iterator[tuple[str, dict[str, str]]]:
    for step in checkpoint.trajectory.steps:
        texts = {"Reflection": step.direction.reflection, "Summary so far": step.direction.summary}
        if known := {title: text for title, text in texts.items() if text}:
            yield f"{number}/{step.index + 1}", known


def _texts(failure: Failure) -> list[str]:
    texts = (failure.input, failure.target, failure.answer, failure.reason)
    return [abridged(text, _MAX_CHARACTERS) for text in texts]
