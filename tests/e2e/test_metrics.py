"""A real Prometheus scrapes a run, of which two actors and a replica are killed on the way."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.simulated_endpoint import CLIENT_GONE, AccessRecord, Behaviour, SimulatedEndpoint
from tests.e2e.prometheus import Prometheus, home, is_of_sweeps, monitored, queries

if TYPE_CHECKING:
    from tests.e2e.conftest import Gpo, Started, Until, WriteConfig

SOUND = Behaviour(latency_s=0.1)
HELD = Behaviour(latency_s=15.0)
"""Whatever is asked now is unanswered for a while, and its process can be killed meanwhile."""
STILL_S = 1.0
"""So long nothing was answered: all that was asked before is, since that takes a tenth of it."""
FAULTY = Behaviour(latency_s=0.02, error_rate=0.05, limit=20, retry_after_s=0.1)


class Exporter:
    """The run's own, asked directly: Prometheus takes seconds to find a run."""

    def __init__(self, home: Path) -> None:
        self._targets = home / "gpo" / "monitoring" / "targets"

    def sums(self, name: str, label: str = "run") -> Counter[str]:
        """Label value → sum of the series; nothing while there is no exporter."""
        found: Counter[str] = Counter()
        for file in self._targets.glob("*.json"):
            address = json.loads(file.read_text(encoding="utf-8"))[0]["targets"][0]
            with urlopen(f"http://{address}/metrics") as reply:
                families = text_string_to_metric_families(reply.read().decode())
                samples = [sample for family in families for sample in family.samples if sample.name == name]
            for sample in samples:
                found[sample.labels[label]] += int(sample.value)
        return +found


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


def _in_flight(endpoint: SimulatedEndpoint) -> int:
    with urlopen(endpoint.base_url.removesuffix("/v1") + "/health") as reply:  # noqa: S310
        return int(json.load(reply)["in_flight"])


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


# It takes most of a minute.
@pytest.mark.slow
def test_counters_equal_the_endpoints_log_when_processes_were_killed(
    endpoint: SimulatedEndpoint,
    gpo: Gpo,
    write_config: WriteConfig,
    prometheus: Prometheus,
    tmp_path: Path,
    until: Until,
) -> None:
    endpoint.behaviour, exporter = SOUND, Exporter(tmp_path / "home")
    config = write_config(
        tmp_path,
        endpoint.base_url,
        run={"seeds": [0, 1, 2, 3]},
        models={
            "task": {"max_concurrency": 24, "price": {"prompt": 1.0, "completion": 2.0}},
            "optimizer": {"price": {"prompt": 1.0, "completion": 2.0}},
        },
        optimizer={"steps": 4, "candidates": 4},
        cluster={"trajectories_per_actor": 2, "evaluator_replicas": 2},
        metrics={"port": 0},
        budget={"calls": 100_000},
    )
    command = gpo.start("run", config, "--run-dir", "results", cwd=tmp_path, env=home(tmp_path))
    until(lambda: exporter.sums("gpo_steps_total").total() >= 2, "some steps are taken and told")
    endpoint.behaviour = HELD
    until(lambda: _is_settled(endpoint, exporter), "all that was answered is counted", timeout_s=12)
    actors, (replica, *_) = _processes(command, "TrajectoryActor"), _processes(command, "ServeReplica:")
    assert len(actors) == 2
    for number in (*actors, replica):
        os.kill(number, signal.SIGKILL)
    endpoint.behaviour = FAULTY
    finished = command.finish()
    assert finished.code == 0, finished.stderr
    prometheus.look_back()

    calls = _chats(endpoint)
    answered = [call for call in calls if call.status == 200]
    gone = sum(call.status == CLIENT_GONE for call in calls)
    counted = prometheus.ask("sum by (outcome) (gpo_model_requests_total)")
    outcomes = Counter({outcome: int(value) for (outcome,), value in counted.items() if value})
    unanswered = {name: outcomes.pop(name, 0) for name in ("lost", "cancelled")}
    assert outcomes == _by_status(calls)
    assert outcomes["too_many"] > 0
    assert outcomes["unavailable"] > 0
    # What was under way in a process that was killed is lost; what it had asked others for, they gave up.
    assert unanswered["lost"] > 0
    assert sum(unanswered.values()) == gone
    tokens = prometheus.ask("sum by (kind) (gpo_model_tokens_total)")
    assert tokens[("prompt",)] == sum(call.prompt_tokens for call in answered)
    assert tokens[("completion",)] == sum(call.completion_tokens for call in answered)
    by_model = prometheus.ask('sum by (model) (gpo_model_requests_total{outcome="answered"})')
    assert by_model == {(name,): count for name, count in Counter(call.model for call in answered).items()}
    assert prometheus.one("sum(gpo_model_retries_total)") == _retries(calls)
    assert prometheus.one("sum(gpo_model_cost_usd_total)") == pytest.approx(
        sum(call.prompt_tokens + 2 * call.completion_tokens for call in answered) / 1e6
    )
    assert prometheus.ask("sum by (actor) (gpo_actor_deaths_total)") == {
        ("driver",): 0,
        ("evaluator",): 1,
        ("trajectories",): 2,
    }

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


def _is_settled(endpoint: SimulatedEndpoint, exporter: Exporter) -> bool:
    """Whether what has been answered has been counted, and the rest is under way."""
    calls = _chats(endpoint)
    return (
        monotonic() - calls[-1].finished_s > STILL_S
        and exporter.sums("gpo_model_requests_total", "outcome") == _by_status(calls)
        and exporter.sums("gpo_model_requests_in_flight").total() == _in_flight(endpoint) > 0
    )
