"""The benchmarks, as the reference runs store them and as their authors publish them.

In the layout of the reference runs, a benchmark's folder holds ``train.jsonl``, ``eval.jsonl`` (our ``val``),
``test.jsonl`` and perhaps ``few_shot_examples.jsonl``; one of several tasks has a folder of such files per task:
``bbh/navigate/train.jsonl``. Where both layouts are found, this one is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from gpo.data.files import Fields, read_examples
from gpo.data.loaded import LoadedTask, published
from gpo.data.releases import BBHRelease, GSM8KRelease, MMLURelease, Release
from gpo.data.task import Split
from gpo.errors import ConfigError

_FILES = {Split.TRAIN: "train.jsonl", Split.VAL: "eval.jsonl", Split.TEST: "test.jsonl"}
_FEW_SHOT = "few_shot_examples.jsonl"


@dataclass(frozen=True, slots=True)
class Benchmark:
    """How one benchmark stores its examples.

    Attributes:
        fields: the columns, in the layout of the reference runs.
        has_tasks: whether it has a folder per task there.
        release: knows the published files; ``None`` where only the other layout is read.
    """

    name: str
    fields: Fields
    has_tasks: bool
    release: Release | None = None

    def load(self, root: Path, task: str | None, *, where: str) -> LoadedTask:
        """The examples of one task, repeats removed (see ``published``).

        Args:
            root: the benchmark's folder, or the folder that holds it.
            task: which of its tasks; ``None`` where the benchmark is a single one.
            where: the section ``data``, for errors.

        Raises:
            ConfigError: the task's name is missing or unknown, its files are not there, or ``val`` repeats ``test``.
        """
        folder = root / self.name if (root / self.name).is_dir() else root
        if not folder.is_dir():
            raise ConfigError(f"{where}.root", f"{str(root)!r} is not a folder", "name the folder with the files")
        published_tasks = self.release.tasks(folder) if self.release else ()
        if not self.has_tasks:
            if task not in (None, self.name):
                raise ConfigError(f"{where}.name", f"{task!r} is unknown, {self.name} is one task", "leave it out")
            if self.release and published_tasks:
                return self.release.load(folder, self.name, where=f"{where}.root")
            return self._load(folder, f"{where}.root")
        folders = {path.name for path in folder.iterdir() if (path / _FILES[Split.TRAIN]).is_file()}
        folders -= BENCHMARKS.keys()  # one of these is a neighbour, not a task
        if task in folders:
            return self._load(folder / task, f"{where}.root")
        if self.release and task and task in published_tasks:
            return self.release.load(folder, task, where=f"{where}.root")
        there = sorted({*folders, *published_tasks})
        if not there:
            raise ConfigError(
                f"{where}.root", f"{str(folder)!r} holds no task of {self.name}", "name the folder with the files"
            )
        near = get_close_matches((task or "").lower(), there, n=1)
        raise ConfigError(
            f"{where}.name",
            f"{task!r} is not a task of {self.name} in {str(folder)!r}",
            f"did you mean {near[0]!r}?" if near else f"choose one of: {', '.join(there)}",
        )

    def _load(self, folder: Path, where: str) -> LoadedTask:
        splits = {split: read_examples(folder / file, self.fields, where=where) for split, file in _FILES.items()}
        shown = folder / _FEW_SHOT
        few_shot = read_examples(shown, self.fields, where=where) if shown.is_file() else ()
        return published(splits, few_shot, where=where)


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
