from __future__ import annotations

import gzip
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import accumulate, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.simulated_endpoint import AccessRecord, Behaviour, SimulatedEndpoint
from cluster.config import load_config
from gpo.checkpoint import decode
from tests.paths import read_json, read_json_lines

if TYPE_CHECKING:
    from tests.commands import Finished, Gpo, Started
    from tests.configs import WriteConfig
    from tests.conftest import Until

KEY = "canary-5f1d2c"
MARKUP = 'Which <b>team</b> & "desk" <script>alert(1)</script> shall take this?'
NUM_STEPS, NUM_CANDIDATES, VAL_SIZE, TEST_SIZE = 3, 3, 20, 30
USAGE = {"requests", "cached", "retries", "failures", "prompt_tokens", "completion_tokens", "cost_usd"}
ODD = {"empty", "truncated", "unmetered", "cached_tokens", "cached_usd"}


@dataclass(frozen=True)
class Outcome:
    """A run, its outputs and its calls."""

    command: Started
    finished: Finished
    config: Path
    folder: Path
    requests: list[AccessRecord]

    def json(self, name: str) -> Any:
        return read_json(self.folder / name)

    @cached_property
    def summary(self) -> dict[str, Any]:
        return dict(self.json("summary.json"))

    @cached_property
    def steps(self) -> list[dict[str, Any]]:
        return read_json_lines(self.folder / "steps.jsonl")

    def asked(self, model: str) -> list[AccessRecord]:
        return [record for record in self.requests if record.model == model]


@pytest.fixture(scope="module")
def run(gpo: Gpo, write_config: WriteConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    folder = tmp_path_factory.mktemp("run")
    # Slow enough for calls to overlap. Some calls fail, and some replies hold no prompt.
    behaviour = Behaviour(latency_s=0.03, error_rate=0.02, malformed_rate=0.1, api_key=KEY)
    with SimulatedEndpoint(behaviour) as endpoint:
        config = write_config(
            folder,
            endpoint.base_url,
            tasks=[{}, {"name": "desks", "prompt": MARKUP}],
            optimizer={"steps": 99},
            models={"task": {"max_concurrency": 6}, "optimizer": {"max_concurrency": 2}},
            cluster={"evaluator_replicas": 2, "trajectories_per_actor": 2},
        )
        command = gpo.start(
            "run", config, "--run-dir", "results", "--set", f"optimizer.steps={NUM_STEPS}",
            cwd=folder, env={"OPENAI_API_KEY": KEY},
        )  # fmt: skip
        finished = command.finish()
        yield Outcome(command, finished, config, folder / "results", endpoint.requests)


def test_a_run_prints_the_paths_of_its_results(run: Outcome) -> None:
    assert run.finished.code == 0, run.finished.stderr
    for name in ("report.html", "best_prompts.json", "summary.json", "steps.jsonl"):
        assert str(run.folder / name) in run.finished.stdout
        assert (run.folder / name).stat().st_size > 0
    assert "→" in run.finished.stdout


def test_plain_lines_report_the_progress_of_each_trajectory(run: Outcome) -> None:
    for trajectory in ("triage/0", "triage/1", "desks/0", "desks/1"):
        assert f"{trajectory}: initial prompt scored" in run.finished.stderr
        assert f"{trajectory}: step 2/3, best val " in run.finished.stderr
        assert f"{trajectory}: done, best val " in run.finished.stderr
    assert "\x1b" not in run.finished.stdout + run.finished.stderr


def test_a_run_leaves_no_process_behind(run: Outcome, until: Until) -> None:
    until(lambda: not run.command.survivors(), "every process of the run has ended")


def test_the_summary_holds_the_result_of_each_trajectory(run: Outcome) -> None:
    summary = run.summary
    assert set(summary) == {
        "run_id", "status", "started_at", "finished_at", "wall_s", "spent", "ended_by", "trajectories", "averages",
        "llm", "warnings", "is_tested",
    }  # fmt: skip
    assert summary["run_id"].startswith("triage-")
    assert summary["status"] == "completed"
    started, finished = (datetime.fromisoformat(summary[name]) for name in ("started_at", "finished_at"))
    assert started.utcoffset() is not None
    assert 0 < summary["wall_s"] <= (finished - started).total_seconds() + 1
    assert [(row["task"], row["seed"]) for row in summary["trajectories"]] == [
        ("triage", 0), ("triage", 1), ("desks", 0), ("desks", 1),
    ]  # fmt: skip
    for row in summary["trajectories"]:
        assert set(row) == {
            "task",
            "seed",
            "steps",
            "stopped_by",
            "initial",
            "best",
            "test_difference",
            "samples",
            "error",
        }
        assert (row["steps"], row["error"]) == (NUM_STEPS, None)
        for end in ("initial", "best"):
            scores = {f"{split}{part}" for split in ("val", "test") for part in ("", "_interval", "_scored")}
            assert set(row[end]) == {"prompt", *scores, *(["val_expected"] if end == "best" else [])}
            for split in ("val", "test"):
                known = row[end][f"{split}_interval"]
                # The interval of the best prompt on val allows for its choice.
                mean = row[end]["val_expected" if (end, split) == ("best", "val") else split]
                assert 0 <= known["low"] <= mean <= known["high"] <= 1
                assert known["low"] < known["high"]


def test_the_summary_averages_over_tasks_and_counts_prompts_within_the_step_size(run: Outcome) -> None:
    (average,) = run.summary["averages"]
    assert (average["family"], average["tasks"]) == ("all tasks", 2)
    rows = run.summary["trajectories"]
    for which, split in product(("initial", "best"), ("val", "test")):
        mean = sum(row[which][split] for row in rows) / len(rows)
        assert average[which][split]["mean"] == pytest.approx(mean, abs=1e-3)
    for row in rows:
        lines = [line for line in run.steps if (line["task"], line["seed"]) == (row["task"], row["seed"])]
        kept = [one["edit_distance"] <= line["step_size"] for line in lines for one in line["candidates"]]
        assert row["samples"]["acceptance_rate"] == pytest.approx(sum(kept) / len(kept), abs=1e-4)
        assert row["samples"]["candidates"] == len(kept)
        assert row["samples"]["malformed"] == sum(line["malformed"] for line in lines)
    assert "On test, the best prompt " in run.finished.stdout
    assert "of the new prompts were within the step size" in run.finished.stdout


def test_the_best_prompt_has_the_highest_val_score(run: Outcome) -> None:
    for row in run.summary["trajectories"]:
        lines = [line for line in run.steps if (line["task"], line["seed"]) == (row["task"], row["seed"])]
        scores = {candidate["prompt"]: candidate["val"] for line in lines for candidate in line["candidates"]}
        scores[row["initial"]["prompt"]] = row["initial"]["val"]
        complete = [one["val"] for line in lines for one in line["candidates"] if not one["left_out"]]
        assert row["best"]["val"] == max([*complete, row["initial"]["val"]]) == scores[row["best"]["prompt"]]
        assert row["best"]["val_scored"] == VAL_SIZE
        assert row["best"]["val"] >= row["initial"]["val"]
    assert any(row["best"]["val"] > row["initial"]["val"] for row in run.summary["trajectories"])


def test_best_prompts_come_from_the_best_trajectory_of_each_task(run: Outcome) -> None:
    best = run.json("best_prompts.json")
    assert set(best) == {"triage", "desks"}
    for task, entry in best.items():
        rows = [row for row in run.summary["trajectories"] if row["task"] == task]
        top = max(rows, key=lambda row: row["best"]["val"])
        assert entry == {**top["best"], "trajectory": {"task": task, "seed": top["seed"]}}


def test_every_step_is_a_line_with_every_candidate(run: Outcome) -> None:
    keys = [(line["task"], line["seed"], line["step"]) for line in run.steps]
    assert keys == [(task, seed, step) for task in ("desks", "triage") for seed in (0, 1) for step in range(NUM_STEPS)]
    for line in run.steps:
        assert line["step_size"] == {0: 50, 1: 30, 2: 10}[line["step"]]
        assert len(line["candidates"]) + line["malformed"] <= NUM_CANDIDATES
        for candidate in line["candidates"]:
            assert set(candidate) == {
                "prompt", "val", "stderr", "interval", "scored", "unscored", "dropped", "left_out", "edit_distance",
            }  # fmt: skip
            assert 0 <= candidate["val"] <= 1
            assert (candidate["unscored"], candidate["dropped"]) == (0, False)
            assert candidate["scored"] + candidate["left_out"] == VAL_SIZE
            assert candidate["edit_distance"] >= 1
        assert set(line["llm"]) == {"task", "optimizer"}
        # Every reply is a candidate or is counted.
        others = sum(line[name] for name in ("malformed", "rejected", "repeated", "failed"))
        assert len(line["candidates"]) + others == NUM_CANDIDATES
    assert any(line["candidates"] for line in run.steps)


def test_the_usage_equals_the_endpoint_s_log(run: Outcome) -> None:
    for role, model in (("task", "task-model"), ("optimizer", "opt-model")):
        usage, asked = run.summary["llm"][role], run.asked(model)
        assert set(usage) == USAGE | ODD
        assert usage["unmetered"] == 0
        answered = [record for record in asked if record.status == 200]
        assert {name: usage[name] for name in USAGE} == {
            "requests": len(answered),
            "cached": usage["cached"],
            "retries": len(asked) - len(answered),
            "failures": 0,
            "prompt_tokens": sum(record.prompt_tokens for record in answered),
            "completion_tokens": sum(record.completion_tokens for record in answered),
            "cost_usd": 0.0,
        }
    assert Counter(record.status for record in run.requests).keys() == {200, 500}
    malformed = sum(line["malformed"] for line in run.steps)
    assert 0 <= run.summary["llm"]["optimizer"]["empty"] <= malformed


def test_only_the_initial_and_the_best_prompt_are_scored_on_test(run: Outcome) -> None:
    scored = sum(candidate["scored"] for line in run.steps for candidate in line["candidates"])
    ends = sum(len({row["initial"]["prompt"], row["best"]["prompt"]}) for row in run.summary["trajectories"])
    initials = len(run.summary["trajectories"])
    task, optimizer = (run.summary["llm"][role] for role in ("task", "optimizer"))
    assert task["requests"] + task["cached"] == initials * VAL_SIZE + scored + ends * TEST_SIZE
    assert optimizer["requests"] + optimizer["cached"] == initials * NUM_STEPS * NUM_CANDIDATES


def test_no_call_is_made_twice(run: Outcome) -> None:
    answered = Counter(record.content for record in run.requests if record.model and record.status == 200)
    assert max(answered.values()) == 1
    # The two seeds of a task share at least their initial prompt.
    assert run.summary["llm"]["task"]["cached"] >= 2 * VAL_SIZE


def test_trajectories_run_in_parallel(run: Outcome) -> None:
    progress = run.finished.stderr
    begun = [progress.index(f"{key}: initial prompt scored") for key in ("triage/0", "triage/1", "desks/0", "desks/1")]
    assert max(begun) < progress.index(": done, best val ")


def test_limits_hold_for_all_processes_together(run: Outcome) -> None:
    assert _most_at_once(run.requests) == 6
    assert _most_at_once(run.asked("opt-model")) == 2


def _most_at_once(calls: list[AccessRecord]) -> int:
    events = sorted(event for call in calls for event in ((call.started_s, 1), (call.finished_s, -1)))
    return max(accumulate(change for _, change in events))


def test_the_written_configuration_loads_again(run: Outcome) -> None:
    resolved = load_config(run.folder / "config.yaml")
    assert [task.prompt for task in resolved.tasks][1] == MARKUP
    assert resolved == load_config(run.config, [f"optimizer.steps={NUM_STEPS}"])


def test_the_key_is_in_no_file_and_in_no_output(run: Outcome) -> None:
    files = [path for path in run.folder.rglob("*") if path.is_file()]
    compressed = [path for path in files if path.suffix == ".gz"]  # examples and answers
    assert len(files) - len(compressed) == 8 + 2 * len(run.summary["trajectories"])  # a checkpoint and its backup
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert not [path for path in compressed if KEY.encode() in gzip.decompress(path.read_bytes())]
    assert KEY not in run.finished.stdout + run.finished.stderr


def test_each_trajectory_has_a_checkpoint(run: Outcome) -> None:
    for row in run.summary["trajectories"]:
        path = run.folder / "trajectories" / row["task"] / f"seed-{row['seed']}.msgpack"
        checkpoint = decode(path.read_bytes())
        assert len(checkpoint.trajectory.steps) == NUM_STEPS
        assert checkpoint.trajectory.best.prompt.text == row["best"]["prompt"]
        ends = {checkpoint.trajectory.initial.prompt.id, checkpoint.trajectory.best.prompt.id}
        assert set(checkpoint.test) == ends


def test_the_report_escapes_prompts(run: Outcome) -> None:
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<script") == 2  # the report's script and its data
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert run.summary["run_id"] in page
    assert not re.search(r'(src|href)="(?!#|data:)|url\(', page)  # nothing is loaded from another host
