"""BIG-Bench Hard as published: one JSON file a task, ``navigate.json``, without splits."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from gpo.datasets.files import read_text
from gpo.datasets.loaded import LoadedTask, published
from gpo.datasets.rows import Fields, example_of
from gpo.datasets.splits import distinct, shuffled
from gpo.errors import ConfigError
from gpo.examples import Example
from gpo.tasks import Split

_FEW_SHOT, _SET_ASIDE = 5, 10
_FEWEST = 20


class BBHRelease:
    """Makes the splits itself, in the sizes of the reference runs (48, 48 and 144 of 250).

    Repeated questions leave first. Of the rest, shuffled with a fixed seed, ten are set aside: five few-shot examples,
    and five more that the reference runs used up for the form of the answer. Of what remains a fifth each, rounded
    down, is ``train`` and ``val``; all others are ``test``.
    """

    def tasks(self, folder: Path) -> Collection[str]:
        return sorted(path.stem for path in folder.glob("*.json"))

    def load(self, folder: Path, task: str, *, where: str) -> LoadedTask:
        path = folder / f"{task}.json"
        mixed = shuffled(distinct(_examples(path, where)))
        if len(mixed) < _FEWEST:
            raise ConfigError(
                where, f"{str(path)!r} holds only {len(mixed)} different examples", "put the published file there"
            )
        used = mixed[_SET_ASIDE:]
        fifth = len(used) // 5
        splits = {Split.TRAIN: used[:fifth], Split.VAL: used[fifth : 2 * fifth], Split.TEST: used[2 * fifth :]}
        return published(splits, mixed[:_FEW_SHOT], where=where)


def _examples(path: Path, where: str) -> list[Example]:
    try:
        document: Any = json.loads(read_text(path, where))
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{where} ({path.name}:{error.lineno})", f"not valid JSON ({error.msg})", "put the published file there"
        ) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists in lists without end
        reason = str(error).partition(";")[0]
        raise ConfigError(
            f"{where} ({path.name})", f"not valid JSON ({reason})", "put the published file there"
        ) from None
    rows = document.get("examples") if isinstance(document, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(
            f"{where} ({path.name})", "there is no list of objects named examples", "put the published file there"
        )
    return [
        example_of(row, Fields(), f"{where} ({path.name}: example {number})")
        for number, row in enumerate(rows, start=1)
    ]
