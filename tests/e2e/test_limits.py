from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from tests.paths import read_json, read_json_lines
from tests.servers import redis_server

if TYPE_CHECKING:
    from tests.commands import Gpo
    from tests.configs import WriteConfig
    from tests.conftest import Until


def _summary(folder: Path) -> dict[str, Any]:
    return dict(read_json(folder / "summary.json"))


@pytest.mark.slow
def test_a_run_adapts_to_an_endpoint_that_takes_less_than_configured_and_fails_at_times(
    endpoint: SimulatedEndpoint, gpo: Gpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    endpoint.behaviour = Behaviour(latency_s=0.03, limit=6, retry_after_s=0.1, error_rate=0.05)
    config = write_config(tmp_path, endpoint.base_url, optimizer={"steps": 3, "candidates": 8})
    done = gpo("run", config, "--run-dir", "results", cwd=tmp_path)
    assert done.code == 0, done.stderr
    steps = read_json_lines(tmp_path / "results" / "steps.jsonl")
    assert sum(candidate["unscored"] for step in steps for candidate in step["candidates"]) == 0
    statuses = [call.status for call in endpoint.requests if call.path == "/v1/chat/completions"]
    assert statuses.count(429) > 0
    assert statuses[len(statuses) // 2 :].count(429) < 0.1 * len(statuses) / 2
    assert _summary(tmp_path / "results")["llm"]["task"]["retries"] > 0


@pytest.mark.slow
def test_a_budget_stops_a_run_and_a_larger_one_resumes_it(
    endpoint: SimulatedEndpoint, gpo: Gpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    endpoint.behaviour = Behaviour(latency_s=0.01)
    config = write_config(tmp_path, endpoint.base_url, budget={"calls": 190})
    stopped = gpo("run", config, "--run-dir", "results", cwd=tmp_path)
    assert stopped.code == 1
    assert "Stopped by budget.calls: 190 model calls were answered; finished work is saved." in stopped.stderr
    summary = _summary(tmp_path / "results")
    assert (summary["status"], summary["spent"]["calls"]) == ("budget_exhausted", 190)
    # The endpoint counts the calls in flight at the end, whether or not a reply was read.
    assert sum(call.status == 200 and "chat" in call.path for call in endpoint.requests) == 190
    assert [row["error"] for row in summary["trajectories"]] == [None, None]
    assert any(row["initial"] is not None for row in summary["trajectories"])

    resumed = gpo("run", config, "--run-dir", "results", "--resume", "--set", "budget.calls=null", cwd=tmp_path)
    assert resumed.code == 0, resumed.stderr
    assert _summary(tmp_path / "results")["status"] == "completed"
    task = [call.content for call in endpoint.requests if call.model == "task-model" and call.status == 200]
    assert len(task) == len(set(task)), "the cache holds the answers that no checkpoint has"


@pytest.mark.slow
@pytest.mark.parametrize("is_shared", [True, False])
def test_two_clusters_share_the_limits_of_an_endpoint(
    is_shared: bool,
    endpoint: SimulatedEndpoint,
    gpo: Gpo,
    until: Until,
    write_config: WriteConfig,
    tmp_path: Path,
) -> None:
    endpoint.behaviour = Behaviour(latency_s=0.2)
    limit = {"max_concurrency": 8}
    cluster = {"share_limits_env": "SHARED_URL"} if is_shared else {}
    config = write_config(
        tmp_path, endpoint.base_url, models={"task": limit, "optimizer": limit}, cluster=cluster,
        optimizer={"steps": 100, "candidates": 8}, cache={"kind": "none"},
    )  # fmt: skip

    def most_at_once(since: int) -> int:
        return max(call.in_flight for call in endpoint.requests[since:])

    with redis_server(tmp_path) as url:
        # Each run starts a Ray of its own, so these are two clusters.
        for folder in ("one", "two"):
            before = len(endpoint.requests)
            gpo.start("run", config, "--run-dir", folder, cwd=tmp_path, env={"SHARED_URL": url})
            steps = tmp_path / folder / "steps.jsonl"
            until(lambda steps=steps: steps.exists() and steps.read_bytes(), "a step is done")
            assert len(endpoint.requests) > before
        alone = len(endpoint.requests)
        until(lambda: len(endpoint.requests) > alone + 200, "both work")
        assert most_at_once(alone) == 8 if is_shared else most_at_once(alone) > 8
        gpo.end()
