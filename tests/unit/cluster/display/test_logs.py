from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.display import logs
from cluster.display.logs import Format, Level, Logs, Target
from gpo.errors import ConfigError
from gpo.runtime.context import log_about


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Leaves the loggers as they were."""
    root, before = logging.getLogger(), logs.chosen()
    handlers, level = list(root.handlers), root.level
    root.handlers.clear()
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers[:], root.level = handlers, level
    for name in ("gpo", "actors", "serve", "cluster"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    logs._chosen = before


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


async def work(task: str, seed: int) -> None:
    log_about(task=task, trajectory=f"{task}/{seed}")
    for step in range(2):
        log_about(step=step)
        await asyncio.sleep(0)
        await asyncio.create_task(speak())


async def speak() -> None:
    logging.getLogger("gpo.somewhere").info("at work", extra={"val": 0.5})


async def test_each_line_names_its_run_task_trajectory_and_step(tmp_path: Path) -> None:
    logs.choose(Logs(Format.JSON, Level.INFO, Target.FOLDER))
    logs.choose_for("run-1", tmp_path)
    logging.getLogger("cluster").info("begins")
    await asyncio.gather(work("desk", 0), work("lab", 1))
    logging.getLogger("cluster").info("of another", extra={"trajectory": "x/9"})
    logged = lines(tmp_path / "logs")
    about = [tuple(line[name] for name in ("run", "task", "trajectory", "step")) for line in logged]
    assert about[0] == ("run-1", None, None, None)
    assert sorted(about[1:5]) == [
        ("run-1", task, f"{task}/{seed}", step) for task, seed in (("desk", 0), ("lab", 1)) for step in (0, 1)
    ]
    assert about[5] == ("run-1", None, "x/9", None)
    assert logged[1]["message"] == "at work"
    assert (logged[1]["level"], logged[1]["logger"], logged[1]["val"]) == ("INFO", "gpo.somewhere", 0.5)
    assert logged[1]["timestamp"].endswith("+00:00")
    assert logged[1]["pid"] == os.getpid()


def test_an_exception_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.choose(Logs(Format.JSON))
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        logging.getLogger("actors").exception("failed")
    (line,) = capsys.readouterr().err.splitlines()
    assert "second" in json.loads(line)["exc_info"]


def test_other_loggers_log_warnings_only(capsys: pytest.CaptureFixture[str]) -> None:
    logs.choose(Logs(Format.JSON, Level.DEBUG))
    logging.getLogger("openai").debug("a whole request, with its prompt")
    logging.getLogger("gpo.gate").debug("ours")
    assert [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()] == ["ours"]


def test_processes_that_a_run_starts_log_in_the_same_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert logs.chosen().for_workers() == {}
    logs.choose(Logs(Format.JSON, Level.INFO, Target.FOLDER))
    logs.choose_for("run-1", tmp_path)
    environment = logs.chosen().for_workers()
    for name, value in environment["env_vars"].items():
        monkeypatch.setenv(name, value)
    module, _, function = environment["worker_process_setup_hook"].rpartition(".")
    assert (module, function) == ("cluster.display.logs", "begin_here")
    logs.begin_here()
    logging.getLogger("actors").info("here")
    (path,) = (tmp_path / "logs").glob("worker-*.jsonl")
    assert json.loads(path.read_text())["run"] == "run-1"


def test_text_is_the_default_format(capsys: pytest.CaptureFixture[str]) -> None:
    logs.choose(Logs())
    logs.choose_for("run-1", None)
    assert not logs.chosen().owns_stderr
    assert logs.chosen().for_workers() == {}
    logging.getLogger("cluster").info("not shown")
    logging.getLogger("cluster.runs.run").warning("shown")
    assert capsys.readouterr().err == "WARNING cluster.runs.run: shown\n"


def test_a_log_folder_must_be_local(tmp_path: Path) -> None:
    logs.choose(Logs(target=Target.FOLDER))
    with pytest.raises(ConfigError, match="needs a local run folder"):
        logs.choose_for("run-1", None)
    (tmp_path / "logs").touch()
    with pytest.raises(ConfigError, match="cannot be made"):
        logs.choose_for("run-1", tmp_path)


def test_unknown_log_fields_are_refused() -> None:
    with pytest.raises(TypeError, match="unknown: prompt"):
        log_about(prompt="text")
