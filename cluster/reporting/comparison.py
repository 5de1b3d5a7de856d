"""What a page of ``gpo view`` shows of several runs side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actors.folder import Folder
from actors.search import SearchKey
from cluster.reporting.curves import curves_in_words, curves_svg, data_url
from cluster.reporting.diff import Segment, word_diff
from cluster.reporting.page import Plot, without_secrets
from cluster.results.differences import difference_sentence
from cluster.results.outputs import best_prompt, scored_prompt
from cluster.results.stored_run import NOT_AS_WRITTEN, StoredRun, json_object, sections
from gpo.checkpoint import Checkpoint
from gpo.intervals import paired_difference


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """A run, and the name of its folder."""

    name: str
    folder: Folder
    stored: StoredRun

    @property
    def best(self) -> Mapping[str, tuple[SearchKey, Checkpoint]]:
        """Task → the trajectory with the best prompt."""
        return self.stored.record.best_by_task()


@dataclass(frozen=True, slots=True)
class ComparedTask:
    """A task of the compared runs.

    Attributes:
        initial, best: scores of each run as in ``scored_prompt`` and ``best_prompt``; ``None`` without any.
        diffs: of each run but the first: how its best prompt differs from the first run's; empty if one has none.
        sentences: what a paired test on ``test`` says about the first run and each other, where both answered the same
            examples.
        plots: the curves of each run; ``None`` without any.
    """

    name: str
    initial: Sequence[Mapping[str, Any] | None]
    best: Sequence[Mapping[str, Any] | None]
    diffs: Sequence[Sequence[Segment]]
    sentences: Sequence[str]
    plots: Sequence[Plot | None]


def compared_tasks(runs: Sequence[ComparedRun]) -> list[ComparedTask]:
    """Every task that a run has scores of, in the order of the runs."""
    names = dict.fromkeys(name for run in runs for name in run.best)
    return [_compared(name, runs) for name in names]


def _compared(name: str, runs: Sequence[ComparedRun]) -> ComparedTask:
    known = [run.best[name][1] if name in run.best else None for run in runs]
    prompts = [one.trajectory.best.prompt.text if one else None for one in known]
    return ComparedTask(
        name,
        [scored_prompt(one.trajectory.initial, one) if one else None for one in known],
        [best_prompt(one) if one else None for one in known],
        [word_diff(prompts[0], text) if prompts[0] and text else [] for text in prompts[1:]],
        list(_sentences(name, runs, known)),
        [_plot(name, run) for run in runs],
    )


def _sentences(name: str, runs: Sequence[ComparedRun], known: Sequence[Checkpoint | None]) -> Iterator[str]:
    """Only for runs with the same examples and the same metric, whose best prompts have scores."""
    tests = [one.test.get(one.trajectory.best.prompt.id) if one else None for one in known]
    bases = [_basis(name, run) for run in runs]
    for run, test, basis in zip(runs[1:], tests[1:], bases[1:], strict=True):
        if tests[0] is None or test is None or basis is None or basis != bases[0]:
            continue
        difference = paired_difference(test.score, tests[0].score)
        if difference is not None:
            yield difference_sentence(difference, f"the best prompt of {run.name}", f"that of {runs[0].name}")


def _basis(name: str, run: ComparedRun) -> tuple[Any, ...] | None:
    """What scores on a task depend on: its examples, and how answers are read and scored; ``None`` if unknown."""
    try:
        tasks = {task["name"]: task for task in sections(run.stored.record.config)["tasks"]}
        examples, functions = (json_object(run.folder.read(file)) for file in ("data.json", "functions.json"))
        return examples[name], tasks[name].get("answer"), functions.get(name)
    except NOT_AS_WRITTEN:
        return None


def _plot(name: str, run: ComparedRun) -> Plot | None:
    curves = sorted((key, one) for key, one in run.stored.record.checkpoints.items() if key.task == name)
    return Plot(name, data_url(curves_svg(curves)), curves_in_words(curves)) if curves else None


def different_options(runs: Sequence[ComparedRun]) -> list[tuple[str, list[str]]]:
    """The options that are not the same in all runs: their paths, and their values as JSON; empty if not stated."""
    flat = [dict(_flat(sections(without_secrets(run.stored.record.config)))) for run in runs]
    paths = dict.fromkeys(path for one in flat for path in one)
    rows = [(path, [one.get(path, "") for one in flat]) for path in paths]
    return [row for row in rows if len(set(row[1])) > 1]


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _flat(inner, f"{path}.{name}".removeprefix("."))
    elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
        for index, inner in enumerate(value):
            yield from _flat(inner, f"{path}.{index}")
    else:
        yield path, json.dumps(value, ensure_ascii=False, default=str)
