"""Metrics of runs, compared with the log of their endpoint: without kills, and with two actors and a replica killed."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.simulated_endpoint import CLIENT_GONE, AccessRecord, Behaviour, SimulatedEndpoint
from tests.e2e.prometheus import Prometheus, home, is_of_sweeps, monitored, queries
from tests.e2e.scraper import Scraper

if TYPE_CHECKING:
    from tests.commands import Gpo, Started
    from tests.configs import WriteConfig
    from tests.conftest import Until

SOUND = Behaviour(latency_s=0.1)
FAULTY = Behaviour(latency_s=0.02, error_rate=0.05, limit=20, retry_after_s=0.1)
UNREPORTED_S = 1.0
"""What a killed process counted within so long before may be missing."""
PRICE = {"price": {"prompt": 1.0, "completion": 2.0}}


def _chats(endpoint: SimulatedEndpoint) -> list[AccessRecord]:
    return [call for call in endpoint.requests if call.path == "/v1/chat/completions"]


def _by_status(calls: Sequence[AccessRecord]) -> Counter[str]:
    names = {200: "answered", 429: "too_many", 500: "unavailable"}
    return Counter(names[call.status] for call in calls if call.status != CLIENT_GONE)


def _retries(calls: Sequence[AccessRecord]) -> int:
    """Requests of the same content as one before that the endpoint would not answer."""
    last: dict[str, int] = {}
    count = 0
    for call in sorted(calls, key=lambda call: call.started_s):
        count += last.get(call.content) in (429, 500)
        last[call.content] = call.status
    return count


def _processes(command: Started, name: str) -> list[int]:
    found = []
    for number in command.numbers():
        line = Path(f"/proc/{number}/cmdline").read_bytes().decode(errors="replace")
        if line.startswith(f"ray::{name}"):
            found.append(number)
    return found


@pytest.fixture
def prometheus(gpo: Gpo, tmp_path: Path, until: Until) -> Iterator[Prometheus]:
    with monitored(gpo, tmp_path, until) as running:
        yield running


def test_counters_equal_the_log_of_the_endpoint_if_no_process_is_killed(
    endpoint: SimulatedEndpoint, gpo: Gpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    endpoint.behaviour = FAULTY
    config = write_config(
        tmp_path,
        endpoint.base_url,
        models={"task": {"max_concurrency": 24, **PRICE}, "optimizer": PRICE},
        # So many calls at once that the endpoint refuses some.
        preset="paper",
        optimizer={"steps": 2},
        metrics={"port": 0},
    )
    with Scraper(tmp_path) as scraper:
        finished = gpo("run", config, "--run-dir", "results", cwd=tmp_path, env=home(tmp_path))
    assert finished.code == 0, finished.stderr
    assert scraper.fallen() == []
    calls = _chats(endpoint)
    answered = [call for call in calls if call.status == 200]
    outcomes = scraper.sums("gpo_model_requests_total", "outcome")
    assert outcomes == _by_status(calls)
    assert min(outcomes["too_many"], outcomes["unavailable"]) > 0
    assert scraper.sums("gpo_model_requests_total", "model") == Counter(call.model for call in calls)
    assert scraper.sums("gpo_model_tokens_total", "kind") == {
        "prompt": sum(call.prompt_tokens for call in answered),
        "completion": sum(call.completion_tokens for call in answered),
    }
    assert scraper.sums("gpo_model_retries_total").total() == _retries(calls)
    assert scraper.sums("gpo_model_request_duration_seconds_count").total() == len(answered)
    assert scraper.sums("gpo_limiter_wait_seconds_count").total() == len(calls)
    assert scraper.sums("gpo_model_requests_in_flight") == scraper.sums("gpo_model_requests_waiting") == {}
    cost = sum(value for (name, _), value in scraper.scrapes[-1].items() if name == "gpo_model_cost_usd_total")
    assert cost == pytest.approx(sum(call.prompt_tokens + 2 * call.completion_tokens for call in answered) / 1e6)
    assert scraper.sums("gpo_actor_deaths_total", "actor") == {}
    summary = json.loads((tmp_path / "results" / "summary.json").read_text(encoding="utf-8"))
    num_tested = sum(len({row[end]["prompt"] for end in ("initial", "best")}) for row in summary["trajectories"])
    # Of each trajectory: the initial prompt, and two for each step; then one for each prompt that is tested.
    assert scraper.sums("gpo_checkpoints_total").total() == 2 * (1 + 2 * 2) + num_tested


# It takes most of a minute.
@pytest.mark.slow
def test_no_counter_falls_and_a_second_is_missing_at_most_if_processes_are_killed(
    endpoint: SimulatedEndpoint,
    gpo: Gpo,
    write_config: WriteConfig,
    prometheus: Prometheus,
    tmp_path: Path,
    until: Until,
) -> None:
    endpoint.behaviour = SOUND
    config = write_config(
        tmp_path,
        endpoint.base_url,
        run={"seeds": [0, 1, 2, 3]},
        models={"task": {"max_concurrency": 24, **PRICE}, "optimizer": PRICE},
        # So many calls that parts are killed in the middle.
        preset="paper",
        optimizer={"steps": 4, "candidates": 4},
        cluster={"trajectories_per_actor": 2, "evaluator_replicas": 2},
        metrics={"port": 0},
        budget={"calls": 100_000},
    )
    with Scraper(tmp_path, "/") as scraper:
        command = gpo.start("run", config, "--run-dir", "results", cwd=tmp_path, env=home(tmp_path))
        until(lambda: scraper.sums("gpo_steps_total").total() >= 2, "some steps are taken and exported")
        actors, (replica, *_) = _processes(command, "TrajectoryActor"), _processes(command, "ServeReplica:")
        assert len(actors) == 2
        for number in (*actors, replica):
            os.kill(number, signal.SIGKILL)
        killed_s = monotonic()
        endpoint.behaviour = FAULTY
        finished = command.finish()
    assert finished.code == 0, finished.stderr
    prometheus.look_back()
    assert scraper.fallen() == []

    calls = _chats(endpoint)
    counted = prometheus.ask("sum by (outcome) (gpo_model_requests_total)")
    outcomes = Counter({outcome: int(value) for (outcome,), value in counted.items() if outcome != "cancelled"})
    unreported = [call for call in calls if call.finished_s > killed_s - UNREPORTED_S and call.started_s < killed_s]
    assert _is_within(outcomes, _by_status(calls), missing=len(unreported))
    assert min(outcomes["too_many"], outcomes["unavailable"]) > 0
    tokens = prometheus.ask("sum by (kind) (gpo_model_tokens_total)")
    for kind in ("prompt", "completion"):
        spent, missing = (sum(getattr(call, f"{kind}_tokens") for call in some) for some in (calls, unreported))
        assert spent - missing <= tokens[(kind,)] <= spent
    assert prometheus.ask("sum by (actor) (gpo_actor_deaths_total)") == {
        ("driver",): 0,
        ("evaluator",): 1,
        ("trajectories",): 2,
    }

    # The driver counts these, which was not killed.
    lines = [json.loads(line) for line in (tmp_path / "results" / "steps.jsonl").read_text().splitlines()]
    assert prometheus.one("sum(gpo_steps_total)") == len(lines) == 16
    num_candidates = sum(len(line["candidates"]) for line in lines)
    assert prometheus.one('sum(gpo_samples_total{fate="scored"})') == num_candidates
    assert prometheus.one("sum(gpo_candidate_score_ratio_count)") == num_candidates
    summary: dict[str, Any] = json.loads((tmp_path / "results" / "summary.json").read_text())
    best = {(str(row["seed"]),): row["best"]["val"] for row in summary["trajectories"]}
    assert prometheus.ask('sum by (seed) (gpo_trajectory_score_ratio{prompt="best"})') == pytest.approx(best, abs=1e-4)
    assert prometheus.one("sum(gpo_run_active)") == 0
    assert list((tmp_path / "home" / "gpo" / "monitoring" / "targets").iterdir()) == []
    assert [query for query in queries() if not is_of_sweeps(query) and not prometheus.rows(query)] == []


def _is_within(counted: Mapping[str, int], logged: Mapping[str, int], *, missing: int) -> bool:
    """Whether nothing is counted that is not in the log, and so many requests are missing at most."""
    lacking = [logged[outcome] - counted.get(outcome, 0) for outcome in logged]
    return min(lacking) >= 0 and sum(lacking) <= missing
