"""Jobs on a cluster that was started by ``ray start``, with a token, as ``gpo submit`` starts and stops them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from serve.embedded_model import free_port
from tests.e2e.conftest import ROOT

if TYPE_CHECKING:
    from tests.e2e.conftest import Gpo, Until, WriteConfig

TOKEN = "a" * 32
NUM_STEPS = 4


@dataclass(frozen=True)
class Cluster:
    url: str

    @property
    def env(self) -> dict[str, str]:
        """What the one who submits has: the address and the token, and no key."""
        return {"RAY_API_SERVER_ADDRESS": self.url, "RAY_AUTH_TOKEN": TOKEN}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    dashboard = free_port()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "OPENAI_"))}
    env = {
        "PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "SERVICE_KEY": "k" * 20,
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_JOB_STOP_WAIT_TIME_S": "20",
    }  # fmt: skip
    # A short path: Ray's sockets have at most 107 characters.
    folder = Path("/tmp") / f"gpo-e2e-{os.getpid()}"  # noqa: S108
    process = subprocess.Popen(
        [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=4",
            "--node-ip-address=127.0.0.1", f"--port={free_port()}", f"--dashboard-port={dashboard}",
            f"--dashboard-agent-listen-port={free_port()}", f"--metrics-export-port={free_port()}",
            f"--ray-client-server-port={free_port()}", f"--temp-dir={folder}",
        ],
        cwd=tmp_path_factory.mktemp("head"), env={**inherited, **env},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, text=True,
    )  # fmt: skip
    yield Cluster(f"http://127.0.0.1:{dashboard}")
    process.terminate()
    process.wait(30)
    with pytest.raises(ProcessLookupError):
        while True:
            os.killpg(process.pid, signal.SIGKILL)
            time.sleep(0.1)


def _summary(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "summary.json").read_text(encoding="utf-8")))


def test_a_run_is_submitted_stopped_and_goes_on(
    cluster: Cluster, endpoint: SimulatedEndpoint, gpo: Gpo, until: Until, write_config: WriteConfig, tmp_path: Path
) -> None:
    work, runs = tmp_path / "work", tmp_path / "runs"
    work.mkdir()
    model = {"api_key_env": "SERVICE_KEY"}
    config = write_config(
        work,
        endpoint.base_url,
        run={"dir": str(runs)},
        optimizer={"steps": NUM_STEPS},
        models={"task": {**model, "max_concurrency": 8}, "optimizer": model},
    )
    (work / ".env").write_text("SERVICE_KEY=never-shipped", encoding="utf-8")
    endpoint.behaviour = Behaviour(latency_s=0.05)
    submit = ("submit", "config.yaml", "--run-id", "first")

    def answered() -> bool:
        return gpo("submit", "--status", "none", cwd=work, env=cluster.env).stderr.count("no such job") == 1

    until(answered, "the cluster answers")
    following = gpo.start(*submit, "--follow", cwd=work, env=cluster.env)
    steps = runs / "first" / "steps.jsonl"
    until(lambda: steps.exists() and steps.read_bytes().count(b"\n") >= 2, "two steps are done")
    began = time.monotonic()
    stopped = gpo("submit", "--stop", "first", cwd=work, env=cluster.env)
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
    again = gpo(*submit, "--wait", cwd=work, env=cluster.env)
    assert again.code == 0, again.stderr
    assert "Submitted job first-2 to go on with the run" in again.stderr
    summary = _summary(runs / "first")
    assert (summary["run_id"], summary["status"]) == ("first", "completed")
    assert [row["steps"] for row in summary["trajectories"]] == [NUM_STEPS, NUM_STEPS]
    status = gpo("submit", "--status", "first", cwd=work, env=cluster.env)
    assert status.stdout.startswith("first-2 SUCCEEDED")

    refused = gpo(*submit[:2], "--run-id", "other", "--set", "models.task.api_key_env=ELSEWHERE", "--wait",
                  cwd=work, env=cluster.env)  # fmt: skip
    assert refused.code == 2
    assert "ELSEWHERE" in refused.stderr
    assert "never shipped" in refused.stderr
    assert not (runs / "other").exists()

    wrong = gpo(*submit, cwd=work, env={**cluster.env, "RAY_AUTH_TOKEN": "b" * 32})
    assert wrong.code == 2
    assert "refuses the token" in wrong.stderr
