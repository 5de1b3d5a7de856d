"""``gpo show`` on a run that this process has made on the simulated endpoint."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import gpo as library
from actors.folder import Folder
from actors.search import SearchKey
from benchmarks.simulated_endpoint import SimulatedEndpoint
from cluster.results.answers import SearchAnswers
from cluster.results.stored_run import RunReader
from tests.commands import RunGpo
from tests.unit.cluster.api.test_optimize import arguments
from tests.unit.cluster.reporting.test_report import data

MARKUP = '<script>alert("canary")</script>'
KEY = SearchKey("task", 0)


def judged(answer: str, example: library.Example) -> tuple[float, str]:
    return float(answer == example.target), f"{MARKUP} expected {example.target}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("shown")
    with SimulatedEndpoint() as endpoint:
        library.optimize(**arguments(endpoint, made, metric=judged))
    return made / "run"


def test_the_answers_are_those_that_the_scores_rest_on(folder: Path) -> None:
    record = RunReader(Folder.at(str(folder))).read().record
    checkpoint = record.checkpoints[KEY]
    answers = SearchAnswers.read(Folder.at(str(folder)), KEY)
    for candidate in (checkpoint.trajectory.initial, checkpoint.trajectory.best):
        known = answers.by_prompt[candidate.prompt.id]
        for split, score in (("val", candidate.score), ("test", checkpoint.test[candidate.prompt.id].score)):
            values = {index: value for index, value in enumerate(score.values_E) if value is not None}
            assert {index: one.value for (of, index), one in known.items() if of == split} == values
    chosen = {checkpoint.trajectory.initial, checkpoint.trajectory.best}
    chosen |= {step.successor for step in checkpoint.trajectory.steps}
    assert set(answers.by_prompt) <= {candidate.prompt.id for candidate in chosen}


def test_a_table_shows_inputs_targets_and_both_answers(gpo: RunGpo, folder: Path) -> None:
    shown = gpo("show", str(folder), cwd=folder)
    trajectory = RunReader(Folder.at(str(folder))).read().record.checkpoints[KEY].trajectory
    ends = (trajectory.initial.prompt.id, trajectory.best.prompt.id)
    compared = SearchAnswers.read(Folder.at(str(folder)), KEY).compared(*ends)
    assert shown.code == 0
    assert all(f"{one.split}/{one.index + 1}" in shown.stdout for one in compared)
    only = gpo("show", str(folder), "--only", "wrong", cwd=folder)
    outcomes = re.findall(r"Outcome (\w+)", only.stdout)
    assert outcomes == ["wrong"] * sum(one.outcome == "wrong" for one in compared)


def test_one_example_is_shown_as_a_whole(gpo: RunGpo, folder: Path) -> None:
    shown = gpo("show", str(folder), "--example", "test/3", cwd=folder).stdout
    rows = [json.loads(line) for line in (folder / "data/test.jsonl").read_text().splitlines()]
    assert any(row["text"] in shown and f"Target: {row['label']}" in shown for row in rows)
    assert "Reason: <script>" in shown


def test_what_was_read_from_an_answer_is_shown(gpo: RunGpo, tmp_path: Path) -> None:
    async def wordy(messages: Sequence[dict[str, str]]) -> str:
        return "I would say: \x1b[31m billing. That is my answer."

    with SimulatedEndpoint() as endpoint:
        library.optimize(**arguments(endpoint, tmp_path, metric="label", task_model=wordy, steps=0))
    run = str(tmp_path / "run")
    whole = gpo("show", run, "--example", "test/3", cwd=tmp_path).stdout
    assert "\n  Read as: billing\n" in whole
    assert "\x1b" not in whole
    assert "answer. (read as billing)" in " ".join(gpo("show", run, cwd=tmp_path).stdout.split())


def test_prompts_are_listed_and_chosen_by_the_beginning_of_their_ids(gpo: RunGpo, folder: Path) -> None:
    record = RunReader(Folder.at(str(folder))).read().record
    best = record.checkpoints[KEY].trajectory.best.prompt
    assert best.id in gpo("show", str(folder), "--prompts", cwd=folder).stdout
    assert (
        gpo("show", str(folder), "--prompt", best.id[:9], cwd=folder).stdout
        == gpo("show", str(folder), cwd=folder).stdout
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "other"], "--task: 'other' is not in the run; choose one of: task"),
        (["--seed", "9"], "--seed: there is no search of 'task' with that seed; seeds: 0"),
        (["--prompt", "zzz"], "--prompt: there is no prompt 'zzz'"),
        (["--only", "good"], "--only: 'good' is unknown; choose one of: broken, fixed"),
        (["--example", "val/999"], "--example: no answer to 'val/999' is recorded"),
    ],
)
def test_mistakes_are_named(options: list[str], message: str, gpo: RunGpo, folder: Path) -> None:
    shown = gpo("show", str(folder), *options, cwd=folder)
    assert shown.code == 2
    assert message in shown.stderr


def test_a_run_without_recorded_answers_says_so(gpo: RunGpo, tmp_path: Path) -> None:
    with SimulatedEndpoint() as endpoint:
        library.optimize(**arguments(endpoint, tmp_path, steps=0, record={"answers": "none"}))
    shown = gpo("show", str(tmp_path / "run"), cwd=tmp_path)
    assert (shown.code, "no answers of task/0 are recorded" in shown.stderr) == (2, True)
    assert not (tmp_path / "run/examples").exists()
    assert 'id="examples"' not in (tmp_path / "run/report.html").read_text()


def test_the_report_contains_the_answers_and_no_markup_of_them(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    examples = data(page)["examples"]
    answers = examples["answers"]["0"]
    assert {prompt: len(rows) for prompt, rows in answers.items()} == examples["recorded"]["0"]
    assert (len(examples["examples"]["task"]), examples["left_out"]) == (40, 0)
    assert any(MARKUP in row[5] for rows in answers.values() for row in rows)
    assert MARKUP not in page


@pytest.mark.parametrize("steps", [1, 2])
def test_a_run_that_is_killed_and_continued_has_the_same_answers(steps: int, folder: Path, tmp_path: Path) -> None:
    async def work(given: dict[str, Any]) -> None:
        def on_event(event: Any) -> None:
            if isinstance(event, library.StepTaken) and event.step == steps:
                running.cancel()

        running = asyncio.create_task(library.optimize_async(**given, on_event=on_event))
        await asyncio.wait([running])

    with SimulatedEndpoint() as endpoint:
        given = arguments(endpoint, tmp_path, metric=judged)
        asyncio.run(work(given))
        library.optimize(**given)
    whole, parts = (SearchAnswers.read(Folder.at(str(one)), KEY).by_prompt for one in (folder, tmp_path / "run"))
    assert {prompt: {at: one.answer for at, one in known.items()} for prompt, known in parts.items()} == {
        prompt: {at: one.answer for at, one in known.items()} for prompt, known in whole.items()
    }
