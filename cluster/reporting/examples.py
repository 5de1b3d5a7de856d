"""The data of the page's table of examples: what the task model answered with the initial and with the best prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from actors.answers import RecordedAnswer
from actors.search import SearchKey
from cluster.results.answers import ComparedExample
from gpo.score import finite
from gpo.text import abridged

_MOST_ROWS = 3_000
"""Of the whole page; a trajectory gets an equal share of them, and at least ten."""
_MOST_CHARACTERS = 600
"""Of each text."""


def example_rows(keys: Sequence[SearchKey], compared: Mapping[SearchKey, Sequence[ComparedExample]]) -> dict[str, Any]:
    """``rows`` and ``left_out`` for the page's script.

    A row: index of the trajectory, split, number from 1, outcome, input, targets, and for each of both prompts its
    answer, score, and reason or problem; null where there is no answer. Examples whose outcome is more interesting come
    first. ``left_out`` is the number of rows that did not fit.

    Args:
        keys: of the trajectories, in the order of the page.
    """
    share = max(10, _MOST_ROWS // max(1, len(compared)))
    rows: list[list[Any]] = []
    left_out = 0
    for number, key in enumerate(keys):
        known = compared.get(key, ())
        left_out += max(0, len(known) - share)
        rows += [_row(number, one) for one in known[:share]]
    return {"rows": rows, "left_out": left_out}


def _row(number: int, one: ComparedExample) -> list[Any]:
    targets = _short(" | ".join(one.example.targets))
    answers = [_answer(one.before), _answer(one.after)]
    return [number, str(one.split), one.index + 1, one.outcome, _short(one.example.input), targets, *answers]


def _answer(answer: RecordedAnswer | None) -> list[Any] | None:
    if answer is None:
        return None
    value = None if answer.value is None else finite(answer.value)
    about = [answer.flaw, answer.problem or answer.reason]
    return [_short(answer.answer), value, _short("; ".join(filter(None, about)))]


def _short(text: str) -> str:
    return abridged(text, _MOST_CHARACTERS)
