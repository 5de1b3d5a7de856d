"""The arguments of ``cluster.launch``, and what it ships; nothing here starts Ray or reaches a cluster."""

from __future__ import annotations

import logging
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import cluster
import gpo
from benchmarks.simulated_endpoint import SimulatedEndpoint
from cluster.api.job import made_submission
from cluster.api.keywords import Arguments
from cluster.api.launch import _submission, _values
from cluster.config import load_config
from cluster.session.models import build_tasks
from gpo.data.task import Split, fingerprint
from gpo.errors import ConfigError
from tests.configs import TRIAGE, small_config, triage_task, write_small_config
from tests.paths import read_json_lines

ROWS = {split: read_json_lines(TRIAGE / f"{split}.jsonl") for split in ("train", "val", "test")}
JOBS = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, with a module; nothing may start Ray."""
    import ray

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("this starts Ray")

    monkeypatch.setattr(ray, "init", refuse)
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "metrics_of_mine.py").write_text(
        "def is_right(answer, example):\n    return float(answer == example.target)\n", encoding="utf-8"
    )
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    yield folder
    sys.modules.pop("metrics_of_mine", None)


def keywords(**changes: Any) -> dict[str, Any]:
    return {
        "prompt": triage_task()["prompt"],
        **ROWS,
        "fields": {"input": "text", "target": "label"},
        "metric": "exact",
        "task_model": small_config("http://127.0.0.1:1/v1")["models"]["task"],
        **changes,
    }


def nested(answer: str, example: object) -> float:
    return float(answer == str(example))


nested.__module__ = "__main__"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "config: is missing; name a YAML file"),
        ({"config": "my-task.yaml"}, "config: "),
        ({"config": "my-task.yaml", "prompt": "Think."}, "prompt: is set as well as config"),
        (keywords(overrides=["optimizer.steps=3"]), "overrides: "),
        ({"config": {"models": {}}, "overrides": "a=3"}, "overrides: "),
        ({"config": {"models": {}}}, "models.task: is missing"),
        (keywords(setps=3), "setps: is not an argument; did you mean 'steps'?"),
        (keywords(steps=-1), "steps: -1 cannot be used"),
        (keywords(metric=lambda answer, example: 1.0), "metric: the function '<lambda>' is known only in this process"),
        (keywords(metric=nested), "metric: the function 'nested' is known only in this process"),
        (keywords(task_model=lambda messages: ""), "task_model: the function '<lambda>'"),
        (keywords(address="head"), "address: 'head' is not the address of a Ray cluster"),
        (keywords(address="127.0.0.1:1"), "address: nothing answers at '127.0.0.1:1'"),
        (keywords(address="https://me:secret@head", run_dir="/storage/a"), "address: holds a user name or password"),
        (keywords(address=JOBS, run_dir="/storage/a"), f"address: no Ray dashboard answers at {JOBS}"),
        (keywords(address=JOBS), "run_dir: 'runs' is relative, and would be lost"),
        (keywords(address=JOBS, run_dir="a"), "run_dir: 'a' is relative, and would be lost"),
        (keywords(address=JOBS, run_dir="/storage/a", progress=True), "progress: needs a run in this process"),
        (keywords(address=JOBS, run_dir="/storage/a", on_event=print), "on_event: needs a run in this process"),
        (keywords(address=JOBS, run_dir="/storage/a", goal="sk-proj-" + "a1B2" * 10), "config: "),
        (keywords(address=JOBS, run_dir="/storage/a", cache={"path": "c.sqlite"}), "cache.path: "),
        (keywords(address=JOBS, run_dir="/storage/a", task_model={"kind": object()}), "task_model"),
        (keywords(run_id="a b"), "run_id: 'a b' cannot be used"),
        (keywords(run_dir=" "), "run_dir: is empty"),
        (keywords(run_dir="s3://me:secret@bucket/a"), "run_dir: holds a user name or password"),
    ],
)
def test_mistakes_name_the_argument(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        cluster.launch(**arguments)
    assert str(caught.value).startswith(said)
    assert "secret" not in str(caught.value)
    assert not Path("runs").exists()


def test_a_remedy_says_what_to_do_with_a_function() -> None:
    with pytest.raises(ConfigError, match="move it to a module"):
        cluster.launch(**keywords(metric=nested))


def test_the_options_of_a_file_keep_their_names(work: Path) -> None:
    write_small_config(work, "http://127.0.0.1:1/v1")
    for override, field in (("optimizer.stepz=3", "optimizer.stepz"), ("optimizer.steps", "overrides")):
        with pytest.raises(ConfigError) as caught:
            cluster.launch("config.yaml", overrides=override)
        assert caught.value.field == field
    with pytest.raises(ConfigError) as caught:
        cluster.launch(work / "config.yaml", overrides=["tasks.0.fields.target=missing"])
    assert caught.value.field == "tasks[0].data.train (train.jsonl:1)"


def test_what_a_job_gets_is_the_same_run_in_another_folder(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from metrics_of_mine import is_right  # type: ignore[import-not-found]

    (work / "val.jsonl").write_bytes((TRIAGE / "val.jsonl").read_bytes())
    elsewhere = tmp_path / "test.jsonl"
    elsewhere.write_bytes((TRIAGE / "test.jsonl").read_bytes())
    given = keywords(metric=is_right, val=work / "val.jsonl", test=str(elsewhere), seed=(3, 4))
    made = tmp_path / "made"
    made.mkdir()
    submission = _submission(None, (), _values(None, (), given), made, "first", "/storage/first")
    assert submission.spec.entrypoint == (
        "python -m cluster.cli run gpo-launch.yaml --run-id first --run-dir /storage/first --resume"
    )
    with caplog.at_level(logging.WARNING):
        shipped = submission.package(logging.warning)
    assert set(shipped.names) == {"gpo-launch.yaml", "gpo-launch/data/train.jsonl", "metrics_of_mine.py", "val.jsonl"}
    assert f"{elsewhere} is outside this folder" in caplog.text
    archive = shipped.write(tmp_path)
    there = tmp_path / "there"
    with zipfile.ZipFile(archive) as content:
        content.extractall(there)
    before = [fingerprint(task) for task in build_tasks(submission.config)]
    monkeypatch.chdir(there)
    sys.modules.pop("metrics_of_mine", None)
    config = load_config(Path("gpo-launch.yaml"))
    assert config.tasks[0].answer.folder == there
    assert config.run.seeds == (3, 4)
    tasks = build_tasks(config)
    assert [fingerprint(task) for task in tasks] == before
    assert len(tasks[0].examples[Split.TRAIN]) == len(ROWS["train"])


def test_a_dictionary_is_shipped_like_a_file(work: Path, tmp_path: Path) -> None:
    raw = {**small_config("http://127.0.0.1:1/v1"), "tasks": [triage_task()]}
    raw["run"] = {"name": "triage", "dir": "/storage/runs", "seeds": (5,)}
    made = tmp_path / "made"
    made.mkdir()
    submission = made_submission(raw, made, run_id=None, run_dir=None)
    assert submission.spec.run_dir == f"/storage/runs/{submission.spec.run_id}"
    assert yaml.safe_load((made / "gpo-launch.yaml").read_text())["run"]["seeds"] == [5]
    with pytest.raises(ConfigError, match=r"^run.name: "):
        made_submission({**raw, "run": {"name": object()}}, made, run_id=None, run_dir=None)


def test_an_installed_function_needs_no_folder() -> None:
    import json

    sections = Arguments(_values(None, (), keywords(metric=json.dumps, train="train.jsonl")).values)  # type: ignore[union-attr]
    assert sections._answer(json.dumps, {}) == {"kind": "custom", "metric": "json:dumps"}


def test_no_cluster_is_started_without_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE")
    with pytest.raises(ConfigError, match=r"^address: Ray was imported already"):
        cluster.launch(**keywords(address="local"))


def test_a_run_that_is_complete_needs_no_cluster(endpoint: SimulatedEndpoint, tmp_path: Path) -> None:
    model = gpo.Endpoint(endpoint.base_url, model="task-model", check=False)
    given = keywords(task_model=model, steps=1, run_dir=tmp_path / "run", evaluation={"val_size": 20, "test_size": 20})
    first = gpo.optimize(**given, progress=False)
    calls = len(endpoint.requests)
    handle = cluster.launch(**given)
    assert handle.wait(timeout=30)
    assert handle.result().best == first.best
    assert handle.status()["state"] == "completed"
    assert len(endpoint.requests) == calls
    with pytest.raises(ConfigError, match=r"^steps: the run in .* has 1, not 2"):
        cluster.launch(**{**given, "steps": 2})
    with pytest.raises(ConfigError, match=r"^train: the examples are not those"):
        cluster.launch(**{**given, "train": ROWS["train"][1:]})
