from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from tests.paths import read_json, read_json_lines

if TYPE_CHECKING:
    from tests.commands import Gpo
    from tests.configs import WriteConfig
    from tests.conftest import Until

SEEDS, VAL, TEST = tuple(range(8)), 20, 30
CONCURRENCY = 8


def _answered(endpoint: SimulatedEndpoint, model: str, since: int = 0) -> Counter[str]:
    return Counter(call.content for call in endpoint.requests[since:] if call.model == model and call.status == 200)


def _summary(folder: Path) -> dict[str, Any]:
    return dict(read_json(folder / "summary.json"))


def _llm(folder: Path, role: str) -> tuple[int, int]:
    usage = _summary(folder)["llm"][role]
    return usage["requests"], usage["cached"]


@pytest.mark.slow
def test_trajectories_share_the_answers_of_the_task_model(
    endpoint: SimulatedEndpoint, gpo: Gpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    endpoint.behaviour = Behaviour(latency_s=0.02)
    config = write_config(
        tmp_path, endpoint.base_url, run={"seeds": list(SEEDS)}, optimizer={"steps": 2},
        evaluation={"scoring": {"kind": "full"}}, cluster={"evaluator_replicas": 2, "trajectories_per_actor": 4},
    )  # fmt: skip
    done = gpo("run", config, "--run-dir", "first", cwd=tmp_path)
    assert done.code == 0, done.stderr
    calls = _answered(endpoint, "task-model")
    assert max(calls.values()) == 1
    requests, cached = _llm(tmp_path / "first", "task")
    assert requests == len(calls)
    rows = _summary(tmp_path / "first")["trajectories"]
    steps = read_json_lines(tmp_path / "first" / "steps.jsonl")
    tried = sum(len(step["candidates"]) for step in steps)
    ends = sum(len({row["initial"]["prompt"], row["best"]["prompt"]}) for row in rows)
    assert requests + cached == (len(SEEDS) + tried) * VAL + ends * TEST
    assert cached >= (len(SEEDS) - 1) * (VAL + TEST)  # the initial prompt

    # The same run again makes no call and has the same result.
    before = len([call for call in endpoint.requests if call.model])
    again = gpo("run", config, "--run-dir", "second", cwd=tmp_path)
    assert again.code == 0, again.stderr
    assert len([call for call in endpoint.requests if call.model]) == before
    assert _llm(tmp_path / "second", "task") == (0, requests + cached)
    assert [{**row, "llm": 0} for row in _summary(tmp_path / "second")["trajectories"]] == [
        {**row, "llm": 0} for row in rows
    ]

    # Without a cache, every call is made again.
    whole = gpo("run", config, "--run-dir", "third", "--set", "cache={kind: none}", cwd=tmp_path)
    assert whole.code == 0, whole.stderr
    assert _llm(tmp_path / "third", "task") == (requests + cached, 0)


@pytest.mark.slow
def test_answers_from_before_a_crash_are_not_paid_for_again(
    endpoint: SimulatedEndpoint, gpo: Gpo, write_config: WriteConfig, tmp_path: Path, until: Until
) -> None:
    endpoint.behaviour = Behaviour(latency_s=0.05)
    config = write_config(tmp_path, endpoint.base_url, models={"task": {"max_concurrency": CONCURRENCY}})
    command = gpo.start("run", config, "--run-dir", "results", cwd=tmp_path)
    # While the candidates of a step are scored, which no checkpoint holds yet.
    until(lambda: _answered(endpoint, "task-model").total() >= 130, "candidates are being scored")
    killed_s = command.kill()
    command.process.communicate(timeout=30)
    until(lambda: not command.survivors(), "every process has gone")
    first, before = _answered(endpoint, "task-model"), len(endpoint.requests)
    saved = sum(path.stat().st_size > 0 for path in (tmp_path / "results").rglob("*.msgpack"))

    endpoint.behaviour = Behaviour()
    resumed = gpo("run", config, "--run-dir", "results", "--resume", cwd=tmp_path)

    assert resumed.code == 0, resumed.stderr
    assert saved >= 1
    twice = first & _answered(endpoint, "task-model", before)
    ended_s = {call.content: call.finished_s for call in endpoint.requests[:before] if call.content in twice}
    assert twice.total() <= 2 * CONCURRENCY  # calls in flight, and answers that waited to be written
    assert all(ended > killed_s - 0.05 for ended in ended_s.values())
    assert _llm(tmp_path / "results", "task")[1] >= 60
