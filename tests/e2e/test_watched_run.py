"""A run whose tasks are scored in three ways; other commands look at it while it works."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from gpo.prompt import Prompt
from tests.commands import gpo_in_this_process
from tests.paths import read_json, read_json_lines

if TYPE_CHECKING:
    from tests.commands import Finished, Gpo
    from tests.configs import WriteConfig
    from tests.conftest import Until

METRIC = """
def half_for_a_word(answer, targets, input):
    return 1.0 if answer in targets else 0.5 if answer else 0.0
"""
TASKS = (
    {},
    {"name": "custom", "answer": {"kind": "custom", "metric": "serve:half_for_a_word"}},
    {"name": "judged", "answer": {"kind": "judge", "rubric": "The label is right.", "scale": 4}},
)
STEPS = 3


@dataclass(frozen=True)
class Watched:
    """A finished run.

    Attributes:
        status, report: ``gpo status --json`` and the page of ``gpo report``, while it ran.
        watched: ``gpo status --watch``, until its end.
    """

    folder: Path
    finished: Finished
    status: Finished
    report: str
    watched: Finished

    @property
    def summary(self) -> dict[str, Any]:
        return dict(read_json(self.folder / "summary.json"))

    @property
    def steps(self) -> list[dict[str, Any]]:
        return read_json_lines(self.folder / "steps.jsonl")


@pytest.fixture(scope="module")
def run(gpo: Gpo, write_config: WriteConfig, until: Until, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    cwd = tmp_path_factory.mktemp("watched")
    folder, configs = cwd / "results", cwd / "configs"
    configs.mkdir()
    (configs / "serve.py").write_text(METRIC, encoding="utf-8")  # the program has a module with this name, too
    options = ("--log-format", "json", "--log-level", "info", "--log-to", "folder")
    with SimulatedEndpoint(Behaviour(latency_s=0.1)) as endpoint:
        optimizer = {"steps": STEPS, "candidates": 3}
        config = write_config(configs, endpoint.base_url, tasks=list(TASKS), run={"seeds": [0]}, optimizer=optimizer)
        command = gpo.start(*options, "run", config, "--run-dir", "results", cwd=cwd, env={"OPENAI_API_KEY": "k"})
        until(lambda: (folder / "steps.jsonl").exists() and bool((folder / "steps.jsonl").read_bytes()), "a step ended")
        endpoint.behaviour = Behaviour(latency_s=1.5)  # the run is to last longer than the next two commands
        status = gpo_in_this_process("status", folder, "--json", cwd=cwd)
        assert gpo_in_this_process("report", folder, cwd=cwd).stdout == f"{folder / 'report.html'}\n"
        report = (folder / "report.html").read_text(encoding="utf-8")
        endpoint.behaviour = Behaviour()
        watched = gpo_in_this_process("status", folder, "--watch", "--every", "0.2", cwd=cwd)
        return Watched(folder, command.finish(), status, report, watched)


def test_status_and_report_show_a_running_run(run: Watched) -> None:
    seen = json.loads(run.status.stdout)
    assert (run.status.code, seen["state"], seen["of_steps"]) == (0, "running", STEPS * len(TASKS))
    assert seen["steps"] >= 1
    assert "running" in run.report
    assert (run.watched.code, run.finished.code) == (0, 0), run.finished.stderr
    assert f"completed, step {STEPS * len(TASKS)} of {STEPS * len(TASKS)}" in run.watched.stdout
    assert "completed" in (run.folder / "report.html").read_text(encoding="utf-8")


def test_logs_name_each_step_and_no_prompt_text(run: Watched) -> None:
    logs = (run.folder / "logs").glob("*.jsonl")
    lines = [json.loads(line) for path in logs for line in path.read_text(encoding="utf-8").splitlines()]
    assert {line["run"] for line in lines} == {run.summary["run_id"]}
    taken = [line for line in lines if line["message"] == "step taken"]
    assert sorted((line["task"], line["trajectory"], line["step"]) for line in taken) == [
        (task, f"{task}/0", step) for task in ("custom", "judged", "triage") for step in range(STEPS)
    ]
    texts = {step["successor"] for step in run.steps}
    assert not any(text in json.dumps(line) for text in texts for line in lines)
    assert {line["prompt"] for line in taken} == {Prompt(text).id for text in texts}


def test_each_task_is_scored_by_its_metric(run: Watched) -> None:
    exact, custom, judged = (row["initial"]["val"] for row in run.summary["trajectories"])
    assert custom == (1 + exact) / 2  # the simulated model always answers a word
    assert judged == exact


def test_each_answer_is_judged_once(run: Watched) -> None:
    row = run.summary["trajectories"][2]
    tried = [candidate for step in run.steps if step["task"] == "judged" for candidate in step["candidates"]]
    ends = len({row["initial"]["prompt"], row["best"]["prompt"]})
    judge = run.summary["llm"]["judge"]  # the same answer to the same question is judged once
    assert judge["requests"] + judge["cached"] == 20 + sum(candidate["scored"] for candidate in tried) + 30 * ends
    assert judge["requests"] >= 20
