"""Loads the benchmarks in the layout of the reference runs and in that of their authors' releases.

In the layout of the reference runs, a benchmark's folder contains ``train.jsonl``, ``eval.jsonl`` (our ``val``),
``test.jsonl`` and optionally ``few_shot_examples.jsonl``; a benchmark of several tasks has a folder with these files
for each task, such as ``bbh/navigate/train.jsonl``. If both layouts are present, this one is used.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol

from gpo.data.example import Example
from gpo.data.files import Fields, example_of, read_examples, read_json_lines, read_text
from gpo.data.splits import LoadedTask, absent_from, distinct, published, shuffled
from gpo.data.task import Split
from gpo.errors import ConfigError

_FILES = {Split.TRAIN: "train.jsonl", Split.VAL: "eval.jsonl", Split.TEST: "test.jsonl"}
_FEW_SHOT = "few_shot_examples.jsonl"


class Release(Protocol):
    """Reads the files of a benchmark's public release."""

    def tasks(self, folder: Path) -> Collection[str]:
        """The tasks with files in an existing folder, in alphabetical order."""
        ...

    def load(self, folder: Path, task: str, *, where: str) -> LoadedTask:
        """Load the examples of a task; the splits are always the same.

        Args:
            where: the setting that names the folder, for errors.

        Raises:
            ConfigError: a file is missing, damaged or too short; the message names the line if possible.
        """
        ...


@dataclass(frozen=True, slots=True)
class Benchmark:
    """How a benchmark stores its examples.

    Attributes:
        fields: the columns in the layout of the reference runs.
        has_tasks: whether that layout has a folder per task.
        release: reads the published files; ``None`` if only the layout of the reference runs is supported.
    """

    name: str
    fields: Fields
    has_tasks: bool
    release: Release | None = None

    def load(self, root: Path, task: str | None, *, where: str) -> LoadedTask:
        """Load the examples of a task without repeats (see ``published``).

        Args:
            root: the benchmark's folder or its parent.
            task: name of the task; ``None`` if the benchmark has only one.
            where: the section ``data``, for errors.

        Raises:
            ConfigError: the task's name is missing or unknown, its files do not exist, or ``val`` repeats ``test``.
        """
        folder = root / self.name if (root / self.name).is_dir() else root
        if not folder.is_dir():
            raise ConfigError(f"{where}.root", f"{str(root)!r} is not a folder", "name the folder with the files")
        published_tasks = self.release.tasks(folder) if self.release else ()
        if not self.has_tasks:
            if task not in (None, self.name):
                raise ConfigError(f"{where}.name", f"{task!r} is unknown: {self.name} has one task", "leave it out")
            if self.release and published_tasks:
                return self.release.load(folder, self.name, where=f"{where}.root")
            return self._load(folder, f"{where}.root")
        folders = {path.name for path in folder.iterdir() if (path / _FILES[Split.TRAIN]).is_file()}
        folders -= BENCHMARKS.keys()  # these are other benchmarks, not tasks
        if task in folders:
            return self._load(folder / task, f"{where}.root")
        if self.release and task and task in published_tasks:
            return self.release.load(folder, task, where=f"{where}.root")
        available = sorted({*folders, *published_tasks})
        if not available:
            raise ConfigError(
                f"{where}.root", f"{str(folder)!r} contains no task of {self.name}", "name the folder with the files"
            )
        near = get_close_matches((task or "").lower(), available, n=1)
        raise ConfigError(
            f"{where}.name",
            f"{task!r} is not a task of {self.name} in {str(folder)!r}",
            f"did you mean {near[0]!r}?" if near else f"choose one of: {', '.join(available)}",
        )

    def _load(self, folder: Path, where: str) -> LoadedTask:
        splits = {split: read_examples(folder / file, self.fields, where=where) for split, file in _FILES.items()}
        shown = folder / _FEW_SHOT
        few_shot = read_examples(shown, self.fields, where=where) if shown.is_file() else ()
        return published(splits, few_shot, where=where)


_BBH_FEW_SHOT, _SET_ASIDE = 5, 10
_FEWEST = 20


class BBHRelease:
    """The release of BBH, which has no splits; they get the sizes of the reference runs (48, 48 and 144 of 250).

    Repeated questions are removed and the rest is shuffled with a fixed seed. The first ten are set aside: five
    few-shot examples, and five that the reference runs used for the answer format. A fifth of the remaining ones,
    rounded down, is ``train``, another fifth is ``val``, and all others are ``test``.
    """

    def tasks(self, folder: Path) -> Collection[str]:
        return sorted(path.stem for path in folder.glob("*.json"))

    def load(self, folder: Path, task: str, *, where: str) -> LoadedTask:
        path = folder / f"{task}.json"
        mixed = shuffled(distinct(_bbh_examples(path, where)))
        if len(mixed) < _FEWEST:
            raise ConfigError(
                where, f"{str(path)!r} contains only {len(mixed)} different examples", "put the published file there"
            )
        used = mixed[_SET_ASIDE:]
        fifth = len(used) // 5
        splits = {Split.TRAIN: used[:fifth], Split.VAL: used[fifth : 2 * fifth], Split.TEST: used[2 * fifth :]}
        return published(splits, mixed[:_BBH_FEW_SHOT], where=where)


def _bbh_examples(path: Path, where: str) -> list[Example]:
    try:
        document: Any = json.loads(read_text(path, where))
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{where} ({path.name}:{error.lineno})", f"not valid JSON ({error.msg})", "put the published file there"
        ) from None
    except (ValueError, RecursionError) as error:  # huge numbers, deeply nested lists
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


_GSM8K_FEW_SHOT, _GSM8K_TRAIN, _GSM8K_VAL = 5, 100, 100
_NUMBER = re.compile(r"####\s*(-?[0-9](?:[0-9,]*[0-9])?(?:\.[0-9]+)?)\s*")


class GSM8KRelease:
    """The release of GSM8K with its published ``test``.

    The published ``train`` is shuffled with a fixed seed; the first 5 are few-shot examples, the next 100 ``train`` and
    the next 100 ``val``. The target is the number alone, without thousands separators.
    """

    def tasks(self, folder: Path) -> Collection[str]:
        # The folder of the reference runs has files of the same names, and also eval.jsonl.
        is_release = (folder / "train.jsonl").is_file() and not (folder / "eval.jsonl").is_file()
        return ["gsm8k"] if is_release else []

    def load(self, folder: Path, task: str, *, where: str) -> LoadedTask:
        test = _gsm8k_examples(folder / "test.jsonl", where)
        given = _gsm8k_examples(folder / "train.jsonl", where)
        mixed = shuffled(absent_from(distinct(given), test))
        needed = _GSM8K_FEW_SHOT + _GSM8K_TRAIN + _GSM8K_VAL
        if not test or len(mixed) < needed:
            found = f"{len(mixed)} questions in train.jsonl that are not in test.jsonl, and {len(test)} in test.jsonl"
            raise ConfigError(
                where, f"{str(folder)!r} contains {found}; {needed} and 1 are needed", "put the published files there"
            )
        few_shot, rest = mixed[:_GSM8K_FEW_SHOT], mixed[_GSM8K_FEW_SHOT:needed]
        return published(
            {Split.TRAIN: rest[:_GSM8K_TRAIN], Split.VAL: rest[_GSM8K_TRAIN:], Split.TEST: test}, few_shot, where=where
        )


def _gsm8k_examples(path: Path, where: str) -> tuple[Example, ...]:
    rows = read_json_lines(path, where=where)
    return tuple(_gsm8k_example(row, f"{where} ({path.name}:{line})") for line, row in rows)


def _gsm8k_example(row: Mapping[str, Any], where: str) -> Example:
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


_LETTERS = "ABCD"
_REMEDY = "put the published file there"


_MMLU_TRAIN, _MMLU_VAL = 20, 20


class MMLURelease:
    """The release of MMLU; ``train`` and ``val`` get the sizes of the reference runs (20 each).

    The few-shot examples are those of the published ``dev``. ``train`` and ``val`` are a fixed random sample of the
    published ``val`` without questions that are in the published ``test``. If these are fewer than 40, as in most
    subjects, the rest is taken from ``test``. ``test`` is the published one without these.
    """

    def tasks(self, folder: Path) -> Collection[str]:
        return sorted(path.name.removesuffix("_test.csv") for path in (_data(folder) / "test").glob("*_test.csv"))

    def load(self, folder: Path, task: str, *, where: str) -> LoadedTask:
        dev, val, test = (_mmlu_examples(_data(folder) / part / f"{task}_{part}.csv", where) for part in _PARTS)
        needed = _MMLU_TRAIN + _MMLU_VAL
        own = shuffled(absent_from(distinct(val), (*dev, *test)))[:needed]
        topping = shuffled(absent_from(distinct(test), dev))[: needed - len(own)]
        rest = absent_from(test, topping)
        if len(own) + len(topping) < needed or not rest:
            found = len(own) + len(topping) + len(rest)
            raise ConfigError(
                where, f"{task} has only {found} different questions in val and test, {needed + 1} are needed", _REMEDY
            )
        mixed = shuffled((*own, *topping))
        splits = {Split.TRAIN: mixed[:_MMLU_TRAIN], Split.VAL: mixed[_MMLU_TRAIN:], Split.TEST: rest}
        return published(splits, dev, where=where)


_PARTS = ("dev", "val", "test")


def _data(folder: Path) -> Path:
    return folder / "data" if (folder / "data" / "test").is_dir() else folder


def _mmlu_examples(path: Path, where: str) -> tuple[Example, ...]:
    # Not strict: with an unclosed quote, the number of columns or the answer is wrong and reported.
    reader = csv.reader(io.StringIO(read_text(path, where)))
    examples = tuple(_mmlu_example(row, f"{where} ({path.name}:{reader.line_num})") for row in reader if row)
    if not examples:
        raise ConfigError(where, f"{str(path)!r} contains no example", _REMEDY)
    return examples


def _mmlu_example(row: list[str], where: str) -> Example:
    if len(row) != 2 + len(_LETTERS):
        raise ConfigError(where, f"there are {len(row)} columns, not question, A, B, C, D and answer", _REMEDY)
    question, *options, answer = row
    if not question.strip():
        raise ConfigError(where, "the question is empty", _REMEDY)
    letter = answer.strip()
    if len(letter) != 1 or letter not in _LETTERS:
        shown = answer if len(answer) <= 40 else f"{answer[:40]}…"
        raise ConfigError(where, f"the answer {shown!r} is not A, B, C or D", _REMEDY)
    lines = [question, *(f"({name}) {option}" for name, option in zip(_LETTERS, options, strict=True))]
    return Example("\n".join(lines), (f"({letter})",))


BENCHMARKS: Mapping[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark("bbh", Fields("input", "target"), has_tasks=True, release=BBHRelease()),
        Benchmark("mmlu", Fields("input", "output"), has_tasks=True, release=MMLURelease()),
        Benchmark("gsm8k", Fields("input", "output"), has_tasks=False, release=GSM8KRelease()),
        Benchmark("wsc", Fields("input", "output"), has_tasks=False),
        Benchmark("webnlg", Fields("input", "output"), has_tasks=False),
    )
}
