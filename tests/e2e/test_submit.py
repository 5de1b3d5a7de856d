"""Jobs on a cluster that ``ray start`` started with a token; ``gpo submit`` starts and stops them."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.measuring.access_log import CHAT
from benchmarks.measuring.servers import RayHead, free_port
from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from tests.configs import write_small_config
from tests.paths import ROOT, TRIAGE, read_json
from tests.servers import redis_server

if TYPE_CHECKING:
    from tests.commands import Finished, Gpo, Started
    from tests.configs import WriteConfig
    from tests.conftest import Until

pytestmark = pytest.mark.slow

NUM_STEPS = 4


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayHead]:
    """A cluster with a key that the submitting user does not have. A stopped job has ten seconds to end."""
    with RayHead(SERVICE_KEY="k" * 20, RAY_JOB_STOP_WAIT_TIME_S="10") as head:
        yield head


def _to(cluster: RayHead) -> dict[str, str]:
    """The variables with which a user submits to a cluster."""
    return {"RAY_API_SERVER_ADDRESS": cluster.url, "RAY_AUTH_TOKEN": cluster.variables["RAY_AUTH_TOKEN"]}


@dataclass
class Submitting:
    """The user's folder, and the run folders on a volume of the cluster.

    Attributes:
        env: with the address and the token of the cluster.
    """

    endpoint: SimulatedEndpoint
    gpo: Gpo
    until: Until
    work: Path
    runs: Path
    env: dict[str, str]

    def write_config(self, **changes: Any) -> None:
        cache, run = {"path": str(self.runs.with_name("completions.sqlite"))}, {"dir": str(self.runs)}
        write_small_config(
            self.work, self.endpoint.base_url, **{"optimizer": {"steps": NUM_STEPS}, **changes}, run=run, cache=cache
        )

    def submit(self, *options: str) -> Finished:
        return self.gpo("submit", *options, cwd=self.work, env=self.env)

    def follow(self, *options: str) -> Started:
        return self.gpo.start("submit", "config.yaml", *options, "--follow", cwd=self.work, env=self.env)

    def summary(self, run: str) -> dict[str, Any]:
        return dict(read_json(self.runs / run / "summary.json"))

    def num_paid(self) -> int:
        return sum(call.status == 200 and bool(call.model) for call in list(self.endpoint.requests))

    def num_repeated(self) -> int:
        calls = [(call.model, call.content) for call in self.endpoint.requests if call.model and call.status == 200]
        return len(calls) - len(set(calls))


@pytest.fixture
def submitting(endpoint: SimulatedEndpoint, gpo: Gpo, until: Until, tmp_path: Path) -> Submitting:
    (tmp_path / "work").mkdir()
    endpoint.behaviour = Behaviour(latency_s=0.4)
    return Submitting(endpoint, gpo, until, tmp_path / "work", tmp_path / "runs", {})


@pytest.fixture
def user(cluster: RayHead, submitting: Submitting) -> Submitting:
    """A user of the cluster."""
    submitting.env = _to(cluster)
    return submitting


def test_a_run_is_submitted_stopped_and_resumed(user: Submitting) -> None:
    model = {"api_key_env": "SERVICE_KEY"}
    user.write_config(models={"task": {**model, "max_concurrency": 8}, "optimizer": model})
    (user.work / ".env").write_text("SERVICE_KEY=never-shipped", encoding="utf-8")
    following = user.follow("--run-id", "first")
    steps = user.runs / "first" / "steps.jsonl"
    user.until(lambda: steps.exists() and steps.read_bytes().count(b"\n") >= 2, "two steps are done")
    stopped = user.submit("--stop", "first")
    assert stopped.code == 0
    assert "has stopped" in stopped.stderr
    followed = following.finish()
    assert followed.code == 1
    assert "stopped, exit code 1" in followed.stderr
    assert "step 1" in followed.stdout
    # The run ended by itself, within the ten seconds.
    assert (user.summary("first")["run_id"], user.summary("first")["status"]) == ("first", "interrupted")

    user.endpoint.behaviour = Behaviour()
    again = user.submit("config.yaml", "--run-id", "first", "--wait")
    assert again.code == 0, again.stderr
    assert "Submitted job first-2 to resume the run" in again.stderr
    summary = user.summary("first")
    assert (summary["run_id"], summary["status"]) == ("first", "completed")
    assert [row["steps"] for row in summary["trajectories"]] == [NUM_STEPS, NUM_STEPS]
    assert user.submit("--status", "first").stdout.startswith("first-2 SUCCEEDED")

    refused = user.submit("config.yaml", "--run-id", "other", "--set", "models.task.api_key_env=ELSEWHERE", "--wait")
    assert refused.code == 2
    assert "ELSEWHERE" in refused.stderr
    assert "never shipped" in refused.stderr
    assert not (user.runs / "other").exists()

    user.env["RAY_AUTH_TOKEN"] = "b" * 32
    wrong = user.submit("config.yaml", "--run-id", "first")
    assert wrong.code == 2
    assert "refuses the token" in wrong.stderr


@pytest.mark.slow
def test_on_a_cluster_one_exporter_serves_a_run_and_is_restarted(
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
    values: Counter[str] = Counter()

    def scraped() -> Counter[str]:
        with suppress(OSError):  # while there is no exporter
            with urlopen(f"http://127.0.0.1:{port}/metrics") as reply:
                families = list(text_string_to_metric_families(reply.read().decode()))
            samples = [sample for family in families for sample in family.samples]
            if samples:  # none, once the run is over
                values.clear()
            for sample in samples:
                values[f"{sample.name} {sample.labels.get('outcome', '')}".strip()] += int(sample.value)
        return values

    following = gpo.start("submit", "config.yaml", "--run-id", "scraped", "--follow", cwd=work, env=_to(cluster))
    until(lambda: scraped()["gpo_steps_total"] >= 1, "a step is exported")
    (exporter,) = cluster.processes("ray::Exporter")
    os.kill(exporter, signal.SIGKILL)
    until(lambda: cluster.processes("ray::Exporter") not in ([], [exporter]), "there is another exporter")
    # The run waits at its end for a scrape that sees its last values.
    until(lambda: bool(scraped()) and following.process.poll() is not None, "the run is over")
    assert values["gpo_run_active"] == 0
    answered = sum(call.status == 200 for call in endpoint.requests if call.path == CHAT)
    assert values["gpo_model_requests_total answered"] == answered
    assert values["gpo_steps_total"] == 2 * NUM_STEPS
    followed = following.finish()
    assert followed.code == 0, followed.stderr
    with pytest.raises(URLError, match="refused"):
        urlopen(f"http://127.0.0.1:{port}/metrics")


_PROGRAM = """
import json, sys, time
import cluster, gpo
from metrics_of_mine import is_right

base_url, address, triage, runs = sys.argv[1:]
rows = {split: [json.loads(line) for line in open(f"{triage}/{split}.jsonl")] for split in ("train", "val", "test")}


def launched():
    return cluster.launch(
        prompt="Classify the support ticket into one of: billing, technical, shipping, account.",
        **{split: some[:30] for split, some in rows.items()},
        address=address,
        fields={"input": "text", "target": "label"},
        metric=is_right,
        position="question_begin",
        task_model=gpo.Endpoint(base_url, model="task-model", api_key_env="SERVICE_KEY", max_concurrency=4),
        optimizer_model=gpo.Endpoint(base_url, model="opt-model", api_key_env="SERVICE_KEY"),
        steps=4,
        cache={"kind": "none"},
        run_id="launched",
        run_dir=f"{runs}/launched",
    )


run = launched()
while run.status().get("steps", 0) < 1:
    time.sleep(0.2)
assert launched().job_id == run.job_id  # which works already
assert not run.wait(timeout=0.1)
run.stop()
print(run.result().status, flush=True)
again = launched()
print(again.job_id, again.result().status, again.status()["job"]["status"], again.status()["steps"])
print(cluster.attach(f"{runs}/launched").result().best.num_test)
"""


def test_a_run_is_launched_from_python_stopped_and_continued(user: Submitting) -> None:
    metric = "def is_right(answer, example):\n    return float(answer.strip() == example.target)\n"
    (user.work / "metrics_of_mine.py").write_text(metric, encoding="utf-8")
    (user.work / "program.py").write_text(_PROGRAM, encoding="utf-8")
    arguments = (user.endpoint.base_url, user.env.pop("RAY_API_SERVER_ADDRESS"), TRIAGE, user.runs)
    env = {**user.env, "PYTHONPATH": f"{user.work}:{ROOT}"}
    ended = user.gpo.start(*arguments, cwd=user.work, env=env, program=("program.py",)).finish()
    assert ended.code == 0, ended.stderr
    assert ended.stdout.split("\n")[:3] == ["interrupted", "launched-2 completed SUCCEEDED 4", "30"]
    assert user.summary("launched")["run_id"] == "launched"
    assert not (user.work / "runs").exists()


def test_a_sweep_is_stopped_killed_and_resumed(user: Submitting) -> None:
    folder, model = user.runs / "tuned", {"api_key_env": "SERVICE_KEY", "max_concurrency": 4}
    user.write_config(
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
    sweep = ("--sweep", "--run-id", "tuned")

    def begin() -> Started:
        before, following = user.num_paid(), user.follow(*sweep)
        user.until(lambda: user.num_paid() > before + 40, "some steps are paid for")
        return following

    following = begin()
    stopped = user.submit("--stop", "tuned")
    assert stopped.code == 0, stopped.stderr
    assert following.finish().code == 1
    assert read_json(folder / "sweep.json")["status"] == "interrupted"

    following = begin()
    for number in _drivers(folder):
        os.kill(number, signal.SIGKILL)
    killed = following.finish()
    assert killed.code == 1
    assert "tuned-2 failed, exit code 1" in killed.stderr

    user.endpoint.behaviour = Behaviour()
    done = user.submit("config.yaml", *sweep, "--wait")
    assert done.code == 0, done.stderr
    assert "Submitted job tuned-3 to resume the run" in done.stderr
    document = read_json(folder / "sweep.json")
    assert (document["status"], document["trials"]["complete"]) == ("completed", 3)
    assert (folder / "best_config.yaml").exists()
    assert user.num_repeated() <= 2 * 2 * model["max_concurrency"]  # the calls in flight at the two ends


def _drivers(run: Path) -> list[int]:
    """The IDs of the driver that works in a run's folder, and of its shell."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (folder / "cmdline").read_bytes()
            if b"cluster.cli" in line and str(run).encode() in line:
                found.append(int(folder.name))
    assert found
    return found


def test_a_run_is_resumed_after_its_head_node_was_lost_and_came_back(submitting: Submitting, tmp_path: Path) -> None:
    submitting.write_config(models={"task": {"max_concurrency": 4}, "optimizer": {"max_concurrency": 4}})
    run = ("config.yaml", "--run-id", "lost")
    with redis_server(tmp_path) as url:
        redis = url.removeprefix("redis://").partition("/")[0]
        with RayHead(RAY_REDIS_ADDRESS=redis) as head:
            submitting.env = _to(head)
            assert submitting.submit(*run).code == 0
            submitting.until(lambda: submitting.num_paid() > 60, "some steps are paid for")
        submitting.endpoint.behaviour = Behaviour()
        with RayHead(RAY_REDIS_ADDRESS=redis) as head:
            submitting.env = _to(head)
            # Redis holds the job's old state until Ray notices that its node is lost.
            submitting.until(lambda: "FAILED" in submitting.submit("--status", "lost").stdout, "the job has failed")
            done = submitting.submit(*run, "--wait")
    assert done.code == 0, done.stderr
    assert "Submitted job lost-2 to resume the run" in done.stderr
    summary = submitting.summary("lost")
    assert (summary["run_id"], summary["status"]) == ("lost", "completed")
    assert submitting.num_repeated() <= 2 * 4  # the calls in flight at the loss
