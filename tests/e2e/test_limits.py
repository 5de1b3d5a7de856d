from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.simulated_endpoint import AccessRecord, Behaviour, SimulatedEndpoint

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.commands import Gpo
    from tests.configs import WriteConfig


def _summary(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "summary.json").read_text(encoding="utf-8")))


def _most_at_once(calls: Iterable[AccessRecord]) -> int:
    events = sorted(event for call in calls for event in ((call.started_s, 1), (call.finished_s, -1)))
    now = most = 0
    for _, change in events:
        now += change
        most = max(most, now)
    return most


def test_limits_hold_for_all_processes_together(
    endpoint: SimulatedEndpoint, gpo: Gpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    endpoint.behaviour = Behaviour(latency_s=0.03)
    config = write_config(
        tmp_path,
        endpoint.base_url,
        models={"task": {"max_concurrency": 6}, "optimizer": {"max_concurrency": 2}},
        cluster={"evaluator_replicas": 2, "trajectories_per_actor": 1},
        optimizer={"steps": 2, "candidates": 6},
    )
    done = gpo("run", config, "--run-dir", "results", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert _most_at_once(endpoint.requests) == 6
    assert _most_at_once(call for call in endpoint.requests if call.model == "opt-model") == 2


@pytest.mark.slow
def test_an_endpoint_that_takes_less_than_said_and_fails_at_times_is_got_on_with(
    endpoint: SimulatedEndpoint, gpo: Gpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    endpoint.behaviour = Behaviour(latency_s=0.03, limit=6, retry_after_s=0.1, error_rate=0.05)
    config = write_config(tmp_path, endpoint.base_url, optimizer={"steps": 3, "candidates": 8})
    done = gpo("run", config, "--run-dir", "results", cwd=tmp_path)
    assert done.code == 0, done.stderr
    steps = [json.loads(line) for line in (tmp_path / "results" / "steps.jsonl").read_text().splitlines()]
    assert sum(candidate["unscored"] for step in steps for candidate in step["candidates"]) == 0
    statuses = [call.status for call in endpoint.requests if call.path == "/v1/chat/completions"]
    assert statuses.count(429) > 0
    assert statuses[len(statuses) // 2 :].count(429) < 0.1 * len(statuses) / 2
    assert _summary(tmp_path / "results")["llm"]["task"]["retries"] > 0


@pytest.mark.slow
def test_a_budget_stops_a_run_which_goes_on_with_a_larger_one(
    endpoint: SimulatedEndpoint, gpo: Gpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    endpoint.behaviour = Behaviour(latency_s=0.01)
    config = write_config(tmp_path, endpoint.base_url, budget={"calls": 190})
    stopped = gpo("run", config, "--run-dir", "results", cwd=tmp_path)
    assert stopped.code == 1
    assert "Stopped by budget.calls: 190 model calls were answered; what is done is saved." in stopped.stderr
    summary = _summary(tmp_path / "results")
    assert (summary["status"], summary["spent"]["calls"]) == ("budget_exhausted", 190)
    # Those that were under way when it stopped count for the endpoint, whether or not anybody read the reply.
    assert sum(call.status == 200 and "chat" in call.path for call in endpoint.requests) == 190
    assert [row["error"] for row in summary["trajectories"]] == [None, None]
    assert any(row["initial"] is not None for row in summary["trajectories"])

    resumed = gpo("run", config, "--run-dir", "results", "--resume", "--set", "budget.calls=null", cwd=tmp_path)
    assert resumed.code == 0, resumed.stderr
    assert _summary(tmp_path / "results")["status"] == "completed"
    task = [call.content for call in endpoint.requests if call.model == "task-model" and call.status == 200]
    assert len(task) == len(set(task)), "the cache holds what no checkpoint does"
