"""MMLU as published: ``{dev,val,test}/anatomy_{dev,val,test}.csv`` without headings, at times below ``data/``."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from pathlib import Path

from gpo.datasets.files import read_text
from gpo.datasets.loaded import LoadedTask, published
from gpo.datasets.splits import absent_from, distinct, shuffled
from gpo.errors import ConfigError
from gpo.examples import Example
from gpo.tasks import Split

_LETTERS = "ABCD"
_REMEDY = "put the published file there"


_TRAIN, _VAL = 20, 20


class MMLURelease:
    """Makes ``train`` and ``val`` in the sizes of the reference runs, 20 each, so that an epoch has as many steps.

    The few-shot examples are those of the published ``dev``. ``train`` and ``val`` are drawn, always alike, from the
    published ``val``, without what the published ``test`` repeats; where that gives fewer than 40, from ``test`` as
    well. ``test`` is the published one without those: most of the subjects have fewer than 40 in ``val``.
    """

    def tasks(self, folder: Path) -> Collection[str]:
        return sorted(path.name.removesuffix("_test.csv") for path in (_data(folder) / "test").glob("*_test.csv"))

    def load(self, folder: Path, task: str, *, where: str) -> LoadedTask:
        dev, val, test = (_examples(_data(folder) / part / f"{task}_{part}.csv", where) for part in _PARTS)
        needed = _TRAIN + _VAL
        own = shuffled(absent_from(distinct(val), (*dev, *test)))[:needed]
        topping = shuffled(absent_from(distinct(test), dev))[: needed - len(own)]
        rest = absent_from(test, topping)
        if len(own) + len(topping) < needed or not rest:
            found = len(own) + len(topping) + len(rest)
            raise ConfigError(
                where, f"{task} has only {found} different questions in val and test, {needed + 1} are needed", _REMEDY
            )
        mixed = shuffled((*own, *topping))
        splits = {Split.TRAIN: mixed[:_TRAIN], Split.VAL: mixed[_TRAIN:], Split.TEST: rest}
        return published(splits, dev, where=where)


_PARTS = ("dev", "val", "test")


def _data(folder: Path) -> Path:
    return folder / "data" if (folder / "data" / "test").is_dir() else folder


def _examples(path: Path, where: str) -> tuple[Example, ...]:
    # Not strict: where quotes are left open, the columns or the answer come out wrong anyway.
    reader = csv.reader(io.StringIO(read_text(path, where)))
    try:
        examples = tuple(_example(row, f"{where} ({path.name}:{reader.line_num})") for row in reader if row)
    except csv.Error as error:
        raise ConfigError(f"{where} ({path.name}:{reader.line_num})", f"not valid CSV ({error})", _REMEDY) from None
    if not examples:
        raise ConfigError(where, f"{str(path)!r} holds no example", _REMEDY)
    return examples


def _example(row: list[str], where: str) -> Example:
    if len(row) != 2 + len(_LETTERS):
        raise ConfigError(where, f"there are {len(row)} columns, not question, A, B, C, D and answer", _REMEDY)
    question, *options, answer = row
    if not question.strip():
        raise ConfigError(where, "the question is empty", _REMEDY)
    letter = answer.strip()
    if len(letter) != 1 or letter not in _LETTERS:
        shown = answer if len(answer) <= 40 else f"{answer[:40]}…"
        raise ConfigError(where, f"the answer {shown!r} is none of A, B, C and D", _REMEDY)
    lines = [question, *(f"({name}) {option}" for name, option in zip(_LETTERS, options, strict=True))]
    return Example("\n".join(lines), (f"({letter})",))
