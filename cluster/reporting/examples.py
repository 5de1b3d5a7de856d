"""The data of the page's table of examples: what the task model answered with each recorded prompt."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from actors.answers import RecordedAnswer, recorded_prompts
from actors.folder import Folder
from actors.search import SearchKey
from cluster.results.answers import SearchAnswers, ShownExample
from cluster.results.run_record import RunRecord
from gpo.checkpoint import Checkpoint
from gpo.data.task import Split
from gpo.errors import StorageError
from gpo.score import finite
from gpo.text import abridged

log = logging.getLogger(__name__)

_MOST_ANSWERS = 8_000
"""Of the whole page; a trajectory gets an equal share of them, and at least twenty."""
_MOST_CHARACTERS = 600
"""Of each text."""

Answers = Mapping[SearchKey, tuple[SearchAnswers, Mapping[str, int]]]
"""Of each trajectory: the answers that are shown, and the number of recorded ones of each prompt."""


def page_answers(folder: Folder, record: RunRecord) -> Answers:
    """The answers for the page of a run: those of the initial and the best prompt, and of others while there is room.

    Trajectories whose answers cannot be read, or that have none, are left out.
    """
    found: dict[SearchKey, tuple[SearchAnswers, Mapping[str, int]]] = {}
    share = _share(len(record.checkpoints))
    for key, checkpoint in record.checkpoints.items():
        try:
            numbers = recorded_prompts(folder / "trajectories", key)
            if numbers:
                found[key] = SearchAnswers.read(folder, key, _chosen(checkpoint, numbers, share)), numbers
        except StorageError as error:
            log.warning("the answers of %s are left out of the report: %s", key, error)
    return found


def _share(num_trajectories: int) -> int:
    return max(20, _MOST_ANSWERS // max(1, num_trajectories))


def _chosen(checkpoint: Checkpoint, numbers: Mapping[str, int], share: int) -> list[str]:
    """IDs of the initial and the best prompt, then of later prompts before earlier ones, while they fit."""
    trajectory = checkpoint.trajectory
    chosen = [trajectory.initial.prompt.id, trajectory.best.prompt.id]
    room = share - sum(numbers.get(prompt, 0) for prompt in set(chosen))
    for candidate in reversed(trajectory.history):
        prompt = candidate.prompt.id
        if prompt not in chosen and 0 < numbers.get(prompt, 0) <= room:
            chosen.append(prompt)
            room -= numbers[prompt]
    return chosen


def example_data(keys: Sequence[SearchKey], record: RunRecord, answers: Answers) -> dict[str, Any]:
    """``examples``, ``answers``, ``recorded`` and ``left_out`` for the page's script.

    ``examples`` maps a task to ``example_rows``. ``answers`` maps the index of a trajectory, and then the ID of a
    prompt, to ``answer_rows``, those of more interesting examples first. ``recorded`` maps the index of a trajectory to
    the number of recorded answers of each prompt. ``left_out`` is the number of answers that do not fit on the page.

    Args:
        keys: of the trajectories, in the order of the page.
    """
    share = _share(len(record.checkpoints))
    shown: dict[str, dict[tuple[Split, int], ShownExample]] = {}
    rows: dict[int, dict[str, list[list[Any]]]] = {}
    recorded: dict[int, Mapping[str, int]] = {}
    left_out = 0
    for number, key in enumerate(keys):
        if key not in answers:
            continue
        known, recorded[number] = answers[key]
        trajectory = record.checkpoints[key].trajectory
        ends = (trajectory.initial.prompt.id, trajectory.best.prompt.id)
        # The most interesting examples come first, so that they are those that fit.
        places = [(one.split, one.index) for one in known.compared(*ends)[: share // 2]]
        rows[number] = {}
        for prompt, by_place in known.by_prompt.items():
            kept = places if prompt in ends else by_place
            rows[number][prompt] = answer_rows(by_place[place] for place in kept if place in by_place)
            shown.setdefault(key.task, {}).update((place, known.example(*place)) for place in kept)
            left_out += len(by_place) - len(rows[number][prompt])
    examples = {task: example_rows(places) for task, places in shown.items()}
    return {"examples": examples, "answers": rows, "recorded": recorded, "left_out": left_out}


def example_rows(examples: Mapping[tuple[Split, int], ShownExample]) -> list[list[Any]]:
    """A row for each example: split, number from 1, input, targets. Long texts are shortened."""
    return [
        [str(split), index + 1, _short(one.input), [_short(target) for target in one.targets]]
        for (split, index), one in examples.items()
    ]


def answer_rows(answers: Iterable[RecordedAnswer]) -> list[list[Any]]:
    """A row for each answer. Long texts are shortened.

    Split, number from 1, text, score, what was read from it, reason or problem, flaw, tokens, seconds, whether it came
    from the cache, length in characters.
    """
    return [
        [
            str(one.split),
            one.index + 1,
            _short(one.answer),
            None if one.value is None else finite(one.value),
            _short(one.read),
            _short(one.problem or one.reason),
            one.flaw,
            one.tokens,
            one.seconds,
            one.is_cached,
            len(one.answer),
        ]
        for one in answers
    ]


def _short(text: str) -> str:
    return abridged(text, _MOST_CHARACTERS)
