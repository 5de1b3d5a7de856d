"""GSM8K as published: ``train.jsonl`` and ``test.jsonl``, with worked solutions that end in ``#### 42``."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from gpo.datasets.files import read_json_lines
from gpo.datasets.loaded import LoadedTask, published
from gpo.datasets.splits import absent_from, distinct, shuffled
from gpo.errors import ConfigError
from gpo.examples import Example
from gpo.tasks import Split

_FEW_SHOT, _TRAIN, _VAL = 5, 100, 100
_NUMBER = re.compile(r"####\s*(-?[0-9](?:[0-9,]*[0-9])?(?:\.[0-9]+)?)\s*")


class GSM8KRelease:
    """``test`` is the published one.

    Of the published ``train``, shuffled with a fixed seed, the first 5 are few-shot examples, the next 100 ``train``
    and the next 100 ``val``. The target is the number alone, without thousands separators.
    """

    def tasks(self, folder: Path) -> Collection[str]:
        # The reference runs' folder has files of these names, too, and eval.jsonl beside them.
        is_release = (folder / "train.jsonl").is_file() and not (folder / "eval.jsonl").is_file()
        return ["gsm8k"] if is_release else []

    def load(self, folder: Path, task: str, *, where: str) -> LoadedTask:
        test = _examples(folder / "test.jsonl", where)
        given = _examples(folder / "train.jsonl", where)
        mixed = shuffled(absent_from(distinct(given), test))
        needed = _FEW_SHOT + _TRAIN + _VAL
        if not test or len(mixed) < needed:
            found = (
                f"{len(mixed)} questions in train.jsonl that test.jsonl does not have, and {len(test)} in test.jsonl"
            )
            raise ConfigError(
                where, f"{str(folder)!r} holds {found}; {needed} and 1 are needed", "put the published files there"
            )
        few_shot, rest = mixed[:_FEW_SHOT], mixed[_FEW_SHOT:needed]
        return published(
            {Split.TRAIN: rest[:_TRAIN], Split.VAL: rest[_TRAIN:], Split.TEST: test}, few_shot, where=where
        )


def _examples(path: Path, where: str) -> tuple[Example, ...]:
    rows = read_json_lines(path, where=where)
    return tuple(_example(row, f"{where} ({path.name}:{line})") for line, row in rows)


def _example(row: Mapping[str, Any], where: str) -> Example:
    question, answer = row.get("question"), row.get("answer")
    if not isinstance(question, str) or not question.strip() or not isinstance(answer, str):
        raise ConfigError(
            where,
            f"there are no texts question and answer; the columns are: {', '.join(row)}",
            "put the published file there, or add eval.jsonl to a folder of train, eval and test",
        )
    last = answer.rstrip().rpartition("\n")[2]
    number = _NUMBER.fullmatch(last)
    if number is None:
        shown = last if len(last) <= 40 else f"{last[:40]}…"
        raise ConfigError(where, f"the last line {shown!r} is not #### and a number", "put the published file there")
    return Example(question, (number[1].replace(",", ""),))
