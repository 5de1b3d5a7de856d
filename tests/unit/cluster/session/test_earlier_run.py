"""``prompt: {run: FOLDER}``: the best prompts of an earlier run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.folder import Folder
from actors.search import SearchKey
from benchmarks.simulated_endpoint import SimulatedEndpoint
from cluster.config.loading import load_config, validate
from cluster.config.run import RunConfig
from cluster.results.outputs import step_lines
from cluster.results.run_record import RunRecord
from cluster.results.stored_run import RunReader
from cluster.runs.run_folder import RunFolder
from cluster.session.models import build_tasks
from gpo.checkpoint import Checkpoint
from gpo.errors import ConfigError
from gpo.testing.samples import candidate, dropped, trajectory
from tests.commands import searched
from tests.configs import WriteConfig

MODEL = {"base_url": "http://127.0.0.1:9/v1", "model": "a-model"}
FIRST = Checkpoint(
    trajectory(
        candidate("Think.", 0.5), [candidate("Good.", 0.75), dropped("Dropped.", 1.0)], [candidate("Bad.", 0.1)]
    ),
    {},
)
SECOND = Checkpoint(trajectory(candidate("Think.", 0.5), [candidate("Best.", 0.9), candidate("Good.", 0.8)]), {})


def config(folder: Path, prompt: Any, **sections: Any) -> RunConfig:
    task = {
        "name": "desk",
        "data": {split: f"{split}.jsonl" for split in ("train", "val", "test")},
        "prompt": prompt,
        "answer": {"kind": "exact"},
        **sections.pop("task", {}),
    }
    return validate({"models": {"task": MODEL, "optimizer": MODEL}, "tasks": [task], **sections}, base_dir=folder)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder with the data."""
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps({"input": f"{split}?", "target": "yes"}))
    return tmp_path


def save_run(work: Path, url: str, **sections: Any) -> Folder:
    """A run of two seeds with checkpoints."""
    made = config(work, "Think.", run={"seeds": [0, 1]}, **sections)
    folder = Folder.at(url)
    run = RunFolder(folder)
    run.open(made, build_tasks(made), run_id="run-1", resume=False)
    for seed, checkpoint in enumerate((FIRST, SECOND)):
        run.checkpoints.save(SearchKey(made.tasks[0].name, seed), checkpoint)
    return folder


def texts(made: RunConfig) -> list[str]:
    (task,) = build_tasks(made)
    return [prompt.text for prompt in (task.initial, *task.given)]


def open_run(made: RunConfig, url: str | Path, *, resume: bool = False) -> RunRecord:
    return RunFolder(Folder.at(str(url))).open(made, build_tasks(made), run_id="run-2", resume=resume)


def test_the_best_prompts_over_all_seeds_follow_the_initial_one(work: Path, new_folder: Callable[[], str]) -> None:
    folder = save_run(work, new_folder())
    assert texts(config(work, {"run": folder.url})) == ["Think.", "Best.", "Good.", "Bad."]
    assert texts(config(work, {"run": folder.url, "most": 2})) == ["Think.", "Best.", "Good."]


def test_the_folder_is_relative_to_the_configuration(work: Path) -> None:
    save_run(work, str(work / "runs" / "one"))
    made = config(work, {"run": "runs/one", "most": 1})
    assert made.tasks[0].prompt.run == work / "runs" / "one"
    assert texts(made) == ["Think.", "Best."]


def test_another_task_of_the_run_can_be_named(work: Path) -> None:
    save_run(work, str(work / "one"), task={"name": "lab"})
    assert texts(config(work, {"run": "one", "task": "lab", "most": 1})) == ["Think.", "Best."]
    with pytest.raises(
        ConfigError, match=r"has no prompts for a task .desk.; set prompt\.task to one of its tasks: lab"
    ):
        build_tasks(config(work, {"run": "one"}))
    with pytest.raises(ConfigError) as caught:
        build_tasks(config(work, {"run": "one", "task": "floor"}))
    assert caught.value.field == "tasks[0].prompt.task"


@pytest.mark.parametrize("content", [{}, {"notes.txt": "no run"}])
def test_a_folder_without_a_run_is_refused(content: dict[str, str], work: Path) -> None:
    (work / "one").mkdir()
    for name, text in content.items():
        (work / "one" / name).write_text(text)
    with pytest.raises(ConfigError, match="holds no run") as caught:
        build_tasks(config(work, {"run": "one"}))
    assert caught.value.field == "tasks[0].prompt.run"


def test_a_run_without_checkpoints_is_refused(work: Path) -> None:
    folder = save_run(work, str(work / "one"))
    path = work / "one" / "trajectories" / "desk"
    for file in path.glob("seed-*"):
        file.write_bytes(b"damaged")
    with pytest.raises(ConfigError, match=r"no checkpoint of task .desk. .* can be read"):
        build_tasks(config(work, {"run": folder.url}))
    shutil.rmtree(work / "one" / "trajectories")
    with pytest.raises(ConfigError, match="has scored no prompt yet"):
        build_tasks(config(work, {"run": folder.url}))


def said(made: RunConfig) -> str:
    lines: list[str] = []
    build_tasks(made, lines.append)
    (line,) = lines
    return line


def test_what_they_scored_there_is_said(work: Path) -> None:
    save_run(work, str(work / "one"))
    line = said(config(work, {"run": "one", "most": 2}))
    assert "2 prompts of task desk of run run-1" in line
    assert "90.0, 80.0" in line
    assert "same task model, data and metric" in line


@pytest.mark.parametrize(
    ("there", "difference"),
    [
        ({"models": {"task": {**MODEL, "model": "b-model"}, "optimizer": MODEL}}, "task model"),
        ({"models": {"task": {**MODEL, "base_url": "http://127.0.0.1:8/v1"}, "optimizer": MODEL}}, "task model"),
        ({"models": {"task": {**MODEL, "sampling": {"max_tokens": 3}}, "optimizer": MODEL}}, "sampling"),
        ({"task": {"answer": {"kind": "label"}}}, "metric"),
        ({"task": {"position": "system"}}, "metric"),
        ({"task": {"data": {"train": "train.jsonl", "val": "test.jsonl", "test": "val.jsonl"}}}, "data"),
        ({"models": {"task": MODEL, "optimizer": {**MODEL, "model": "b"}}}, None),
        ({"optimizer": {"steps": 3}}, None),
    ],
)
def test_what_differs_there_is_said(there: dict[str, Any], difference: str | None, work: Path) -> None:
    save_run(work, str(work / "one"), **there)
    line = said(config(work, {"run": "one"}))
    assert ("same task model, data and metric" in line) == (difference is None)
    assert difference is None or difference in line.partition("(other")[2]


def test_a_run_of_another_version_has_unknown_settings(work: Path) -> None:
    save_run(work, str(work / "one"))
    (work / "one" / "config.yaml").write_text("optimizer: 3\n")
    assert "unknown settings" in said(config(work, {"run": "one"}))


def test_a_resumed_run_does_not_need_the_other_run(work: Path) -> None:
    save_run(work, str(work / "one"))
    made = config(work, {"run": "one", "most": 2})
    record = open_run(made, work / "two")
    assert set(record.num_steps.values()) == {13}
    shutil.rmtree(work / "one")

    # With the configuration in its own folder, or with the original one.
    own = validate(yaml.safe_load((work / "two" / "config.yaml").read_text()), base_dir=work)
    for again in (own, RunFolder(Folder.at(str(work / "two"))).with_known_prompts(made)):
        assert texts(again) == ["Think.", "Best.", "Good."]
        open_run(again, work / "two", resume=True)

    # Another selection of prompts has to be read, and is not the same run.
    other = config(work, {"run": "one", "most": 1})
    assert RunFolder(Folder.at(str(work / "two"))).with_known_prompts(other) == other


@pytest.mark.parametrize(
    ("prompt", "field"),
    [
        ({"file": "a.txt"}, "tasks[0].prompt.prompts[1]"),
        ({"run": "one", "most": 2}, "tasks[0].prompt.prompts[2]"),
        (["Think.", "Answer."], "tasks[0].prompt[1]"),
    ],
)
def test_other_prompts_on_resume_are_refused(prompt: Any, field: str, work: Path) -> None:
    one = save_run(work, str(work / "one"))
    (work / "a.txt").write_text("Think.\nAnswer.\n")
    made = config(work, prompt)
    open_run(made, work / "two")
    open_run(made, work / "two", resume=True)

    (work / "a.txt").write_text("Think.\nGuess.\n")
    better = trajectory(candidate("Think.", 0.5), [candidate("New.", 0.85)])
    RunFolder(one).checkpoints.save(SearchKey("desk", 0), Checkpoint(better, {}))
    changed = config(work, ["Think.", "Guess."]) if isinstance(prompt, list) else made
    with pytest.raises(ConfigError, match="resume with its own configuration") as caught:
        open_run(changed, work / "two", resume=True)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("prompt", "steps"),
    [(["Think.", "Answer."], 13), (["Think."], 12), ("Think.", 12), ({"run": "one"}, 13), (None, 13)],
)
def test_readers_of_the_folder_know_the_number_of_steps(prompt: Any, steps: int, work: Path) -> None:
    save_run(work, str(work / "one"))
    record = open_run(config(work, prompt, task={"goal": "Answer."}), work / "two")
    assert set(record.num_steps.values()) == {steps}
    assert RunReader(Folder.at(str(work / "two"))).read().record.num_steps == record.num_steps


def test_a_search_tries_them_before_it_asks_for_new_prompts(
    endpoint: SimulatedEndpoint, write_config: WriteConfig, tmp_path: Path
) -> None:
    sizes = {"run": {"seeds": [0]}, "optimizer": {"steps": 1, "candidates": 2}}
    earlier = load_config(write_config(tmp_path, endpoint.base_url, **sizes))
    run = RunFolder(Folder.at(str(tmp_path / "earlier")))
    run.open(earlier, build_tasks(earlier), run_id="earlier", resume=False)
    run.checkpoints.save(SearchKey("triage", 0), SECOND)
    path = write_config(tmp_path, endpoint.base_url, tasks=[{"prompt": {"run": "earlier"}}], **sizes)

    ((_, found),) = searched(path).items()

    first, second = step_lines(RunRecord("run", 0.0, checkpoints={SearchKey("triage", 0): found}))
    assert [one["prompt"] for one in first["candidates"]] == ["Best.", "Good."]
    assert (first["first_prompts"], first["step_size"], first["llm"]["optimizer"]["requests"]) == (True, None, 0)
    assert (second["first_prompts"], second["step_size"], len(second["candidates"])) == (False, 50, 2)
    assert found.trajectory.initial.prompt.text == "Think."
