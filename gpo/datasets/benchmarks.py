"""The benchmarks of the reference runs, as folders of JSON Lines files.

A benchmark's folder holds ``train.jsonl``, ``eval.jsonl`` (our ``val``) and ``test.jsonl``; one of several tasks has a
folder of such files per task: ``bbh/navigate/train.jsonl``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpo.datasets.files import Fields, read_examples
from gpo.datasets.splits import without_overlap
from gpo.errors import ConfigError
from gpo.examples import Example
from gpo.tasks import Split

_FILES = {Split.TRAIN: "train.jsonl", Split.VAL: "eval.jsonl", Split.TEST: "test.jsonl"}


@dataclass(frozen=True, slots=True)
class Benchmark:
    """How one benchmark stores its examples."""

    name: str
    fields: Fields
    has_tasks: bool

    def load(self, root: Path, task: str | None, *, where: str) -> dict[Split, tuple[Example, ...]]:
        """The splits of one task, repeats across splits removed (see ``without_overlap``).

        Args:
            root: the benchmark's folder, or the folder that holds it.
            task: which of its tasks; ``None`` where the benchmark is a single one.

        Raises:
            ConfigError: the task's name is missing or unknown, its files are not there, or ``val`` repeats ``test``.
        """
        folder = root / self.name if (root / self.name).is_dir() else root
        if not folder.is_dir():
            raise ConfigError(f"{where}.root", f"{str(root)!r} is not a folder", "name the folder with the files")
        if self.has_tasks:
            folder = folder / self._known(folder, task, where)
        splits = {
            split: read_examples(folder / file, self.fields, where=f"{where}.root") for split, file in _FILES.items()
        }
        kept = without_overlap(splits)
        if not kept[Split.VAL]:
            problem = f"every example of eval.jsonl in {str(folder)!r} is in test.jsonl too"
            raise ConfigError(f"{where}.root", problem, "replace eval.jsonl")
        return kept

    def _known(self, folder: Path, task: str | None, where: str) -> str:
        names = sorted(path.name for path in folder.iterdir() if (path / _FILES[Split.TRAIN]).is_file())
        if task in names:
            return task
        raise ConfigError(
            f"{where}.name",
            f"{task!r} is not a task of {self.name} in {str(folder)!r}",
            f"choose one of: {', '.join(names) or 'none found there'}",
        )


BENCHMARKS: Mapping[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark("bbh", Fields("input", "target"), has_tasks=True),
        Benchmark("mmlu", Fields("input", "output"), has_tasks=True),
        Benchmark("gsm8k", Fields("input", "output"), has_tasks=False),
        Benchmark("wsc", Fields("input", "output"), has_tasks=False),
        Benchmark("webnlg", Fields("input", "output"), has_tasks=False),
    )
}

_LETTER = re.compile(r"\([A-Z]\)")
_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
_VERDICTS = {"yes", "no", "true", "false", "valid", "invalid"}


def answer_kind(examples: Sequence[Example]) -> str:
    """The kind of answer that the targets show: ``choice``, ``boolean``, ``number``, ``text`` or ``exact``.

    A few faulty targets do not hide multiple choice: two tasks of BBH have one each that is an option's text.
    """
    targets = [target.strip() for example in examples for target in example.targets]
    if any(len(example.targets) > 1 for example in examples):
        return "text"
    if sum(_LETTER.fullmatch(target) is not None for target in targets) >= 0.95 * len(targets):
        return "choice"
    if all(target.lower() in _VERDICTS for target in targets):
        return "boolean"
    if all(_NUMBER.fullmatch(target) for target in targets):
        return "number"
    return "exact"
