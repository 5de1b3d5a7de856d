"""Jobs on a cluster that was started by ``ray start``, with a token, as ``gpo submit`` starts and stops them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.measuring.access_log import CHAT
from benchmarks.measuring.ray_head import RayHead, free_port
from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint

if TYPE_CHECKING:
    from tests.commands import Gpo, Started
    from tests.configs import WriteConfig
    from tests.conftest import Until

NUM_STEPS = 4


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayHead]:
    """A cluster that knows a key which who submits does not have. A job that is told to stop has ten seconds."""
    with RayHead(SERVICE_KEY="k" * 20, RAY_JOB_STOP_WAIT_TIME_S="10") as head:
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
        cache={"path": str(tmp_path / "completions.sqlite")},
        optimizer={"steps": NUM_STEPS},
        models={"task": {**model, "max_concurrency": 8}, "optimizer": model},
    )
    (work / ".env").write_text("SERVICE_KEY=never-shipped", encoding="utf-8")
    endpoint.behaviour = Behaviour(latency_s=0.4)
    submit = ("submit", "config.yaml", "--run-id", "first")

    following = gpo.start(*submit, "--follow", cwd=work, env=_to(cluster))
    steps = runs / "first" / "steps.jsonl"
    until(lambda: steps.exists() and steps.read_bytes().count(b"\n") >= 2, "two steps are done")
    stopped = gpo("submit", "--stop", "first", cwd=work, env=_to(cluster))
    assert stopped.code == 0
    assert "has stopped" in stopped.stderr
    followed = following.finish()
    assert followed.code == 1
    assert "stopped, exit code 1" in followed.stderr
    assert "step 1" in followed.stdout
    summary = _summary(runs / "first")
    # It said so itself, before the ten seconds were over.
    assert (summary["run_id"], summary["status"]) == ("first", "interrupted")

    endpoint.behaviour = Behaviour()
    again = gpo(*submit, "--wait", cwd=work, env=_to(cluster))
    assert again.code == 0, again.stderr
    assert "Submitted job first-2 to resume the run" in again.stderr
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


@pytest.mark.slow
def test_on_a_cluster_one_exporter_tells_of_a_run_and_is_started_anew(
    cluster: RayHead, endpoint: SimulatedEndpoint, gpo: Gpo, until: Until, write_config: WriteConfig, tmp_path: Path
) -> None:
    work, port = tmp_path / "work", free_port()
    work.mkdir()
    write_config(
        work,
        endpoint.base_url,
        run={"dir": str(tmp_path / "runs")},
        cache={"path": str(tmp_path / "completions.sqlite")},
        optimizer={"steps": NUM_STEPS},
        models={"task": {"max_concurrency": 8}},
        metrics={"port": port, "linger_s": 60},
    )
    endpoint.behaviour = Behaviour(latency_s=0.2)
    told: Counter[str] = Counter()

    def scraped() -> Counter[str]:
        with suppress(OSError):  # while there is no exporter
            with urlopen(f"http://127.0.0.1:{port}/metrics") as reply:
                families = list(text_string_to_metric_families(reply.read().decode()))
            samples = [sample for family in families for sample in family.samples]
            if samples:  # none, once the run is over
                told.clear()
            for sample in samples:
                told[f"{sample.name} {sample.labels.get('outcome', '')}".strip()] += int(sample.value)
        return told

    following = gpo.start("submit", "config.yaml", "--run-id", "told", "--follow", cwd=work, env=_to(cluster))
    until(lambda: scraped()["gpo_steps_total"] >= 1, "a step is told of")
    (exporter,) = cluster.processes("ray::Exporter")
    os.kill(exporter, signal.SIGKILL)
    until(lambda: cluster.processes("ray::Exporter") not in ([], [exporter]), "there is another exporter")
    # The run waits at its end for a scrape that sees its last values.
    until(lambda: bool(scraped()) and following.process.poll() is not None, "the run is over")
    assert told["gpo_run_active"] == 0
    answered = sum(call.status == 200 for call in endpoint.requests if call.path == CHAT)
    assert told["gpo_model_requests_total answered"] == answered
    assert told["gpo_steps_total"] == 2 * NUM_STEPS
    followed = following.finish()
    assert followed.code == 0, followed.stderr
    with pytest.raises(URLError, match="refused"):
        urlopen(f"http://127.0.0.1:{port}/metrics")


@pytest.mark.slow
def test_a_sweep_is_stopped_and_killed_and_goes_on(
    cluster: RayHead, endpoint: SimulatedEndpoint, gpo: Gpo, until: Until, write_config: WriteConfig, tmp_path: Path
) -> None:
    work, place = tmp_path / "work", tmp_path / "runs" / "tuned"
    work.mkdir()
    model = {"api_key_env": "SERVICE_KEY", "max_concurrency": 4}
    write_config(
        work,
        endpoint.base_url,
        run={"dir": str(place.parent)},
        cache={"path": str(tmp_path / "completions.sqlite")},
        optimizer={"steps": 3, "candidates": 2},
        evaluation={"val_size": 12, "test_size": 4},
        models={"task": model, "optimizer": model},
        sweep={
            "trials": 3,
            "max_parallel_trials": 2,
            "pruner": {"kind": "none"},
            "space": {"optimizer.schedule.initial": {"low": 5, "high": 60}},
        },
    )
    endpoint.behaviour = Behaviour(latency_s=0.4)
    submit = ("submit", "config.yaml", "--sweep", "--run-id", "tuned")
    paid = [0]

    def begin_and_wait_for_news() -> Started:
        following = gpo.start(*submit, "--follow", cwd=work, env=_to(cluster))
        until(lambda: _paid(endpoint) > paid[-1] + 40, "some steps are paid for")
        return following

    following = begin_and_wait_for_news()
    stopped = gpo("submit", "--stop", "tuned", cwd=work, env=_to(cluster))
    assert stopped.code == 0, stopped.stderr
    assert following.finish().code == 1
    assert json.loads((place / "sweep.json").read_text(encoding="utf-8"))["status"] == "interrupted"
    paid.append(_paid(endpoint))

    following = begin_and_wait_for_news()
    for number in _drivers(place):
        os.kill(number, signal.SIGKILL)
    killed = following.finish()
    assert killed.code == 1
    assert "tuned-2 failed, exit code 1" in killed.stderr

    endpoint.behaviour = Behaviour()
    done = gpo(*submit, "--wait", cwd=work, env=_to(cluster))
    assert done.code == 0, done.stderr
    assert "Submitted job tuned-3 to resume the run" in done.stderr
    document = json.loads((place / "sweep.json").read_text(encoding="utf-8"))
    assert (document["status"], document["trials"]["complete"]) == ("completed", 3)
    assert (place / "best_config.yaml").exists()
    # But for what was under way at the two ends.
    times = Counter((call.model, call.content) for call in endpoint.requests if call.model and call.status == 200)
    assert sum(count - 1 for count in times.values()) <= 2 * 2 * model["max_concurrency"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
def test_a_run_goes_on_when_its_head_node_was_lost_and_came_back(
    endpoint: SimulatedEndpoint, gpo: Gpo, until: Until, write_config: WriteConfig, tmp_path: Path
) -> None:
    work, place = tmp_path / "work", tmp_path / "runs" / "lost"
    work.mkdir()
    write_config(
        work,
        endpoint.base_url,
        run={"dir": str(place.parent)},
        cache={"path": str(tmp_path / "completions.sqlite")},
        optimizer={"steps": NUM_STEPS},
        models={"task": {"max_concurrency": 4}, "optimizer": {"max_concurrency": 4}},
    )
    endpoint.behaviour = Behaviour(latency_s=0.4)
    submit = ("submit", "config.yaml", "--run-id", "lost")
    with _redis(tmp_path) as redis:
        with RayHead(RAY_REDIS_ADDRESS=redis) as head:
            assert gpo(*submit, cwd=work, env=_to(head)).code == 0
            until(lambda: _paid(endpoint) > 60, "some steps are paid for")
        endpoint.behaviour = Behaviour()
        with RayHead(RAY_REDIS_ADDRESS=redis) as head:
            # What Redis kept of the job, until Ray has noticed that its node is gone.
            until(
                lambda: "FAILED" in gpo("submit", "--status", "lost", cwd=work, env=_to(head)).stdout,
                "the job is known to be lost",
            )
            done = gpo(*submit, "--wait", cwd=work, env=_to(head))
    assert done.code == 0, done.stderr
    assert "Submitted job lost-2 to resume the run" in done.stderr
    summary = _summary(place)
    assert (summary["run_id"], summary["status"]) == ("lost", "completed")
    times = Counter((call.model, call.content) for call in endpoint.requests if call.model and call.status == 200)
    assert sum(count - 1 for count in times.values()) <= 2 * 4  # under way when all was lost


@contextmanager
def _redis(folder: Path) -> Iterator[str]:
    """The address of a Redis server."""
    port = free_port()
    server = subprocess.Popen(
        ["redis-server", "--port", str(port), "--save", "", "--dir", str(folder)], stdout=subprocess.DEVNULL
    )
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def _paid(endpoint: SimulatedEndpoint) -> int:
    return sum(call.status == 200 and bool(call.model) for call in list(endpoint.requests))


def _drivers(place: Path) -> list[int]:
    """The processes of the driver that works in a folder, and of its shell."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (folder / "cmdline").read_bytes()
            if b"cluster.cli" in line and str(place).encode() in line:
                found.append(int(folder.name))
    assert found
    return found
