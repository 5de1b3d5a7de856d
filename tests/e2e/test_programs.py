"""A program with two prompts on a cluster: a run that is killed and resumed."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
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
    sections["evaluation"] = {"test_size": 30}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({**sections, "cache": {"path": str(tmp_path / "completions.sqlite")}}))
    return path


def test_a_killed_run_ends_with_the_same_result_within_limit_and_budget(
    gpo: Gpo, config: Path, endpoint: SimulatedEndpoint, until: Until, tmp_path: Path
) -> None:
    endpoint.behaviour = Behaviour(latency_s=0.03)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = gpo.start("run", config, "--run-dir", killed, cwd=tmp_path)
    steps = killed / "steps.jsonl"
    until(lambda: steps.exists() and len(steps.read_text().splitlines()) >= 2, "two steps are done")
    command.kill()
    assert command.finish().code == -signal.SIGKILL
    until(lambda: not command.survivors(), "every process of the run has ended", timeout_s=20)
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

    # Without the cache's replies, an undisturbed run makes every call itself, and has the same results.
    undisturbed = ("--set", f"cache.path={tmp_path / 'other.sqlite'}")
    before = len(endpoint.requests)
    finished = gpo.start("run", config, "--run-dir", whole, *undisturbed, cwd=tmp_path).finish()
    assert finished.code == 0, finished.stderr
    for name in ("steps.jsonl", "best_prompts.json"):
        wanted, found = ((folder / name).read_text() for folder in (whole, killed))
        assert _without_usage(found, name) == _without_usage(wanted, name)
    calls = [record.content for record in endpoint.requests[before:] if record.model == "task-model"]
    assert len(calls) == len(set(calls)) == read_json(whole / "summary.json")["llm"]["task"]["requests"]

    # A budget is kept to the call.
    before = len(endpoint.requests)
    options = ("--set", "budget.calls=200", "--set", "cache={kind: none}")
    finished = gpo.start("run", config, "--run-dir", tmp_path / "bounded", *options, cwd=tmp_path).finish()
    assert "budget" in finished.stderr
    assert len(endpoint.requests) - before == 200


def _without_usage(text: str, name: str) -> Any:
    """The content without what the calls cost: a resumed run finds replies in the cache."""
    if name != "steps.jsonl":
        return json.loads(text)
    return [{key: value for key, value in json.loads(line).items() if key != "llm"} for line in text.splitlines()]
