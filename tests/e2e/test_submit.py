"""Jobs on a cluster that was started by ``ray start``, with a token, as ``gpo submit`` starts and stops them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.measuring.ray_head import RayHead
from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint

if TYPE_CHECKING:
    from tests.e2e.conftest import Gpo, Until, WriteConfig

NUM_STEPS = 4


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayHead]:
    """A cluster that knows a key which the one who submits does not have."""
    with RayHead(SERVICE_KEY="k" * 20, RAY_JOB_STOP_WAIT_TIME_S="20") as head:
        yield head


def _to(cluster: RayHead) -> dict[str, str]:
    """What the one who submits has in the environment: the address and the token."""
    return {"RAY_API_SERVER_ADDRESS": cluster.url, "RAY_AUTH_TOKEN": cluster.variables["RAY_AUTH_TOKEN"]}


def _summary(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "summary.json").read_text(encoding="utf-8")))


@pytest.mark.slow
def test_a_run_is_submitted_stopped_and_goes_on(
    cluster: RayHead, endpoint: SimulatedEndpoint, gpo: Gpo, until: Until, write_config: WriteConfig, tmp_path: Path
) -> None:
    work, runs = tmp_path / "work", tmp_path / "runs"
    work.mkdir()
    model = {"api_key_env": "SERVICE_KEY"}
    write_config(
        work,
        endpoint.base_url,
        run={"dir": str(runs)},
        optimizer={"steps": NUM_STEPS},
        models={"task": {**model, "max_concurrency": 8}, "optimizer": model},
    )
    (work / ".env").write_text("SERVICE_KEY=never-shipped", encoding="utf-8")
    endpoint.behaviour = Behaviour(latency_s=0.4)
    submit = ("submit", "config.yaml", "--run-id", "first")

    following = gpo.start(*submit, "--follow", cwd=work, env=_to(cluster))
    steps = runs / "first" / "steps.jsonl"
    until(lambda: steps.exists() and steps.read_bytes().count(b"\n") >= 2, "two steps are done")
    began = time.monotonic()
    stopped = gpo("submit", "--stop", "first", cwd=work, env=_to(cluster))
    assert stopped.code == 0
    assert "was told to stop" in stopped.stderr
    assert time.monotonic() - began < 20
    followed = following.finish()
    assert followed.code == 1
    assert "stopped, exit code 1" in followed.stderr
    assert "step 1" in followed.stdout
    summary = _summary(runs / "first")
    assert (summary["run_id"], summary["status"]) == ("first", "interrupted")

    endpoint.behaviour = Behaviour()
    again = gpo(*submit, "--wait", cwd=work, env=_to(cluster))
    assert again.code == 0, again.stderr
    assert "Submitted job first-2 to go on with the run" in again.stderr
    summary = _summary(runs / "first")
    assert (summary["run_id"], summary["status"]) == ("first", "completed")
    assert [row["steps"] for row in summary["trajectories"]] == [NUM_STEPS, NUM_STEPS]
    status = gpo("submit", "--status", "first", cwd=work, env=_to(cluster))
    assert status.stdout.startswith("first-2 SUCCEEDED")

    refused = gpo(*submit[:2], "--run-id", "other", "--set", "models.task.api_key_env=ELSEWHERE", "--wait",
                  cwd=work, env=_to(cluster))  # fmt: skip
    assert refused.code == 2
    assert "ELSEWHERE" in refused.stderr
    assert "never shipped" in refused.stderr
    assert not (runs / "other").exists()

    wrong = gpo(*submit, cwd=work, env={**_to(cluster), "RAY_AUTH_TOKEN": "b" * 32})
    assert wrong.code == 2
    assert "refuses the token" in wrong.stderr
