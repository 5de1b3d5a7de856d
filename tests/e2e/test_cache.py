from __future__ import annotations

import json
import os
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint

if TYPE_CHECKING:
    from tests.commands import Gpo, Started
    from tests.configs import WriteConfig
    from tests.conftest import Until

SEEDS, VAL, TEST = tuple(range(8)), 20, 30
CONCURRENCY = 8


def _answered(endpoint: SimulatedEndpoint, model: str, since: int = 0) -> Counter[str]:
    return Counter(call.content for call in endpoint.requests[since:] if call.model == model and call.status == 200)


def _summary(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "summary.json").read_text(encoding="utf-8")))


def _llm(folder: Path, role: str) -> tuple[int, int]:
    usage = _summary(folder)["llm"][role]
    return usage["requests"], usage["cached"]


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [2])
def test_trajectories_from_the_same_prompt_make_no_task_call_twice(
    replicas: int, endpoint: SimulatedEndpoint, gpo: Gpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    endpoint.behaviour = Behaviour(latency_s=0.02)
    config = write_config(
        tmp_path, endpoint.base_url, run={"seeds": list(SEEDS)}, optimizer={"steps": 2},
        cluster={"evaluator_replicas": replicas, "trajectories_per_actor": 4},
    )  # fmt: skip
    done = gpo("run", config, "--run-dir", "first", cwd=tmp_path)
    assert done.code == 0, done.stderr
    calls = _answered(endpoint, "task-model")
    assert max(calls.values()) == 1
    requests, cached = _llm(tmp_path / "first", "task")
    assert requests == len(calls)
    rows = _summary(tmp_path / "first")["trajectories"]
    steps = [json.loads(line) for line in (tmp_path / "first" / "steps.jsonl").read_text().splitlines()]
    tried = sum(len(step["candidates"]) for step in steps)
    ends = sum(len({row["initial"]["prompt"], row["best"]["prompt"]}) for row in rows)
    assert requests + cached == (len(SEEDS) + tried) * VAL + ends * TEST
    assert cached >= (len(SEEDS) - 1) * (VAL + TEST)  # the initial prompt

    # A run like it calls nothing at all, and comes to the same.
    before = len([call for call in endpoint.requests if call.model])
    again = gpo("run", config, "--run-dir", "second", cwd=tmp_path)
    assert again.code == 0, again.stderr
    assert len([call for call in endpoint.requests if call.model]) == before
    assert _llm(tmp_path / "second", "task") == (0, requests + cached)
    assert [{**row, "llm": 0} for row in _summary(tmp_path / "second")["trajectories"]] == [
        {**row, "llm": 0} for row in rows
    ]

    # Without a cache, all of it is called again.
    whole = gpo("run", config, "--run-dir", "third", "--set", "cache={kind: none}", cwd=tmp_path)
    assert whole.code == 0, whole.stderr
    assert _llm(tmp_path / "third", "task") == (requests + cached, 0)


def _kill_all_at_once(command: Started) -> None:
    for number in command.numbers():
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


@pytest.mark.slow
def test_what_was_answered_before_a_crash_is_not_called_again(
    endpoint: SimulatedEndpoint, gpo: Gpo, write_config: WriteConfig, tmp_path: Path, until: Until
) -> None:
    endpoint.behaviour = Behaviour(latency_s=0.05)
    config = write_config(tmp_path, endpoint.base_url, models={"task": {"max_concurrency": CONCURRENCY}})
    command = gpo.start("run", config, "--run-dir", "results", cwd=tmp_path)
    # In the middle of scoring the candidates of a step, of which no checkpoint knows.
    until(lambda: _answered(endpoint, "task-model").total() >= 130, "candidates are being scored")
    killed_s = monotonic()
    _kill_all_at_once(command)
    command.process.communicate(timeout=30)
    until(lambda: not command.survivors(), "every process has gone", timeout_s=20)
    first, before = _answered(endpoint, "task-model"), len(endpoint.requests)
    saved = sum(path.stat().st_size > 0 for path in (tmp_path / "results").rglob("*.msgpack"))

    endpoint.behaviour = Behaviour()
    resumed = gpo("run", config, "--run-dir", "results", "--resume", cwd=tmp_path)

    assert resumed.code == 0, resumed.stderr
    assert saved >= 1
    twice = first & _answered(endpoint, "task-model", before)
    ended_s = {call.content: call.finished_s for call in endpoint.requests[:before] if call.content in twice}
    assert twice.total() <= 2 * CONCURRENCY  # those under way, and what waited to be written
    assert all(ended > killed_s - 0.05 for ended in ended_s.values())
    assert _llm(tmp_path / "results", "task")[1] >= 60
