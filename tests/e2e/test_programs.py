"""A program with two prompts on a cluster: a run that is killed and resumed."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from tests.commands import best_without_a_cluster
from tests.paths import ROOT, read_json

if TYPE_CHECKING:
    from tests.commands import Gpo
    from tests.conftest import Until

EXAMPLE = ROOT / "examples" / "support_desk"
LIMIT = 6


@pytest.fixture
def config(tmp_path: Path, endpoint: SimulatedEndpoint) -> Path:
    sections: dict[str, Any] = yaml.safe_load((EXAMPLE / "config.yaml").read_text())
    (task,) = sections["tasks"]
    task["data"] = {split: str(EXAMPLE / name) for split, name in task["data"].items()}
    task["program"] = {"function": task["program"], "folder": str(EXAMPLE)}
    for model in sections["models"].values():
        model |= {"base_url": endpoint.base_url, "check": False, "max_concurrency": LIMIT}
    sections["optimizer"] |= {"steps": 4, "candidates": 3}
    sections["evaluation"] = {"test_size": 30, "scoring": {"block": 5, "most": 20}}  # long enough to be killed
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({**sections, "cache": {"path": str(tmp_path / "completions.sqlite")}}))
    return path


def test_a_killed_run_ends_with_the_same_result_within_limit_and_budget(
    gpo: Gpo, config: Path, endpoint: SimulatedEndpoint, until: Until, tmp_path: Path
) -> None:
    endpoint.behaviour = Behaviour(latency_s=0.03)
    killed = tmp_path / "killed"
    command = gpo.start("run", config, "--run-dir", killed, cwd=tmp_path)
    steps = killed / "steps.jsonl"
    until(lambda: steps.exists() and len(steps.read_text().splitlines()) >= 2, "two steps are done")
    command.kill()
    assert command.finish().code == -signal.SIGKILL
    until(lambda: not command.survivors(), "every process of the run has ended")
    until(lambda: endpoint._service._in_flight == 0, "the endpoint has answered every call")
    endpoint.behaviour = Behaviour()
    resumed = gpo.start("run", config, "--run-dir", killed, "--resume", cwd=tmp_path).finish()
    assert resumed.code == 0, resumed.stderr
    answered = [record for record in endpoint.requests if record.status == 200 and record.model == "task-model"]
    assert max(record.in_flight for record in endpoint.requests) <= 2 * LIMIT  # two models
    # Calls that were in flight when the run was killed may be made again; no other call at temperature 0.
    repeated = Counter(record.content for record in answered)
    assert sum(count - 1 for count in repeated.values()) <= LIMIT
    assert set(read_json(killed / "best_prompts.json")["desks"]["parts"]) == {"topic", "desk"}

    rows = read_json(killed / "summary.json")["trajectories"]
    best = {(row["task"], row["seed"]): tuple(row["best"][name] for name in ("prompt", "val", "test")) for row in rows}
    assert best == best_without_a_cluster(config)

    # A budget is kept to the call.
    before = len(endpoint.requests)
    options = ("--set", "budget.calls=200", "--set", "cache={kind: none}")
    finished = gpo.start("run", config, "--run-dir", tmp_path / "bounded", *options, cwd=tmp_path).finish()
    assert "budget" in finished.stderr
    assert len(endpoint.requests) - before == 200
