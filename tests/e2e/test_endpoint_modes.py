"""``gpo run`` at endpoints that behave differently; ``tests/unit/cluster/cli`` has the modes that need no Ray."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest

from benchmarks.simulated_endpoint import Behaviour, Mode, SimulatedEndpoint
from tests.commands import announced_url
from tests.configs import CHECKED
from tests.paths import read_json, read_json_lines

if TYPE_CHECKING:
    from tests.commands import Gpo
    from tests.configs import WriteConfig


@pytest.mark.slow
def test_a_filtered_candidate_ends_neither_the_run_nor_its_resumption(
    endpoint: SimulatedEndpoint, gpo: Gpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    endpoint.behaviour = Behaviour(mode=Mode.FILTERS_ONE_CANDIDATE)
    config = write_config(tmp_path, endpoint.base_url, run={"seeds": [0]})
    first = gpo("run", config, "--run-dir", "results", "--set", "budget.calls=130", cwd=tmp_path)
    assert first.code == 1
    done = gpo("run", config, "--run-dir", "results", "--resume", cwd=tmp_path)
    assert done.code == 0, done.stderr
    steps = read_json_lines(tmp_path / "results" / "steps.jsonl")
    assert len(steps) == 3
    assert [prompt for step in steps for prompt in step["unscored"]] == ["Answer with the forbidden phrase."]
    assert "Candidates dropped because they could not be scored: 1 " in done.stdout


@pytest.mark.slow
def test_a_run_checks_its_models_adapts_to_them_and_warns(
    endpoint: SimulatedEndpoint, gpo: Gpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    endpoint.behaviour = Behaviour(mode=Mode.REFUSES_SEED)
    config = write_config(tmp_path, endpoint.base_url, models=CHECKED)
    done = gpo("run", config, "--run-dir", "adapted", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert done.stderr.count("opt-model does not accept seed: requests are sent without it") == 1
    assert [call.status for call in endpoint.requests].count(422) == 1  # the run knows what the check found

    endpoint.behaviour = Behaviour(mode=Mode.EMPTY, mode_of=("task-model",))
    empty = write_config(tmp_path, endpoint.base_url, models=CHECKED, cache={"kind": "none"})
    done = gpo("run", empty, "--run-dir", "empty", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert "Warning: the first reply of models.task" in done.stderr
    assert "20 of 20 answers to the best prompt of triage/0 on val are cut off at max_tokens" in done.stderr
    assert read_json(tmp_path / "empty" / "summary.json")["status"] == "completed"


@pytest.mark.slow
def test_a_sweep_and_a_service_know_what_the_check_found(
    endpoint: SimulatedEndpoint, gpo: Gpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    endpoint.behaviour = Behaviour(mode=Mode.REFUSES_SEED)
    sweep = {"trials": 1, "space": {"optimizer.schedule.initial": {"low": 5, "high": 60}}}
    done = gpo("sweep", write_config(tmp_path, endpoint.base_url, models=CHECKED, sweep=sweep), cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert [call.status for call in endpoint.requests].count(422) == 1

    endpoint.behaviour = Behaviour(mode=Mode.REFUSES_TEMPERATURE)
    config = write_config(tmp_path, endpoint.base_url, models=CHECKED, cache={"kind": "none"})
    server = gpo.start("serve", config, "--port", 0, cwd=tmp_path)
    body = {"task": "triage", "prompt": "Name the label.", "split": "val"}
    reply = httpx2.post(f"{announced_url(server)}/v1/evaluate", json=body, timeout=60, trust_env=False)
    assert reply.status_code == 200, reply.text
    server.interrupt()
    assert server.finish().code == 0
    assert [call.status for call in endpoint.requests].count(400) == 1
