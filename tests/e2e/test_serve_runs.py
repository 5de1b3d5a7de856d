"""Runs over HTTP: many at once, a service that is killed in the middle, and one that ends in order.

``tests/unit/cluster/serving`` has the rest, in one process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

import gpo as library
from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from tests.commands import announced_url
from tests.pages import blocks, commands
from tests.paths import TRIAGE

if TYPE_CHECKING:
    from tests.commands import Finished, Gpo, Started
    from tests.configs import WriteConfig
    from tests.conftest import Until

NUM_RUNS = 20
CALLS = 60
"""The budget of every other run; the others have none."""


@dataclass
class Server:
    """``gpo serve``, which can be started again on the same folder."""

    gpo: Gpo
    config: Path
    until: Until
    commands: list[Started] = field(default_factory=list)

    def start(self) -> None:
        self.commands.append(self.gpo.start("serve", self.config, "--port", 0, "--max-runs", NUM_RUNS, cwd=self.folder))
        self.client = httpx2.Client(base_url=announced_url(self.commands[-1]), timeout=120, trust_env=False)

    @property
    def folder(self) -> Path:
        return self.config.parent

    def runs(self) -> list[dict[str, Any]]:
        reply = self.client.get("/v1/runs")
        assert reply.status_code == 200, reply.text
        found: list[dict[str, Any]] = reply.json()["runs"]
        return found

    def end(self) -> Finished:
        self.commands[-1].interrupt()
        return self.commands[-1].finish()

    def wait(self, condition: Callable[[list[dict[str, Any]]], bool], what: str) -> list[dict[str, Any]]:
        self.until(lambda: condition(self.runs()), what)
        return self.runs()


@pytest.fixture
def server(gpo: Gpo, write_config: WriteConfig, endpoint: SimulatedEndpoint, folder: Path, until: Until) -> Server:
    models = {role: {"max_concurrency": 64} for role in ("task", "optimizer")}
    config = write_config(folder, endpoint.base_url, run={"dir": str(folder / "runs")}, models=models)
    server = Server(gpo, config, until)
    server.start()
    return server


def request(number: int) -> dict[str, Any]:
    """A run with its examples."""
    examples = {
        split: (TRIAGE / f"{split}.jsonl").read_text("utf-8").splitlines() for split in ("train", "val", "test")
    }
    return {
        "run": {"name": "triage", "seeds": [number]},
        "tasks": [
            {
                "name": "triage",
                "data": {split: [json.loads(line) for line in lines[:20]] for split, lines in examples.items()},
                "fields": {"input": "text", "target": "label"},
                "prompt": "Classify the support ticket into one of: billing, technical, shipping, account.",
                "position": "question_begin",
                "answer": {"kind": "exact"},
            }
        ],
        "optimizer": {"steps": 3, "candidates": 3},
        "evaluation": {"scoring": {"block": 5, "most": 20}},
        "budget": {"calls": CALLS} if number % 2 else {},
    }


def test_runs_survive_the_death_of_the_service(server: Server, endpoint: SimulatedEndpoint) -> None:
    endpoint.behaviour = Behaviour(latency_s=0.3)

    def post(number: int) -> str:
        reply = server.client.post("/v1/runs", json=request(number), headers={"Idempotency-Key": f"run {number}"})
        assert reply.status_code == 202, reply.text
        assert reply.headers["location"] == f"/v1/runs/{reply.json()['id']}"
        run_id: str = reply.json()["id"]
        return run_id

    with ThreadPoolExecutor(NUM_RUNS) as pool:
        ids = list(pool.map(post, range(NUM_RUNS)))
        assert len(set(ids)) == NUM_RUNS
        assert list(pool.map(post, range(NUM_RUNS))) == ids
    server.wait(lambda runs: sum(run["steps"] for run in runs) >= NUM_RUNS, "each run has taken a step, on average")
    killed_s = server.commands[-1].kill()
    before = [one for one in endpoint.requests if one.status == 200 and one.finished_s < killed_s]
    assert {run["status"] for run in map(summary_of(server), ids)} <= {"running", "completed", "budget_exhausted"}

    server.start()
    server.wait(lambda runs: sum(run["steps"] for run in runs) >= 2 * NUM_RUNS, "each run has taken two steps")
    # Ray starts the process of the runs again, and it continues.
    (actor,) = (number for number in server.commands[-1].numbers() if is_of_runs(number))
    os.kill(actor, signal.SIGKILL)
    runs = server.wait(lambda runs: all(run["status"] not in ("pending", "running") for run in runs), "all have ended")
    assert sorted(run["id"] for run in runs) == sorted(ids)
    for number, run_id in enumerate(ids):
        (run,) = (run for run in runs if run["id"] == run_id)
        spent = run["spent"]["calls"]
        assert run["status"] in (("completed", "budget_exhausted") if number % 2 else ("completed",)), run
        assert run["error"] is None
        assert number % 2 == 0 or spent <= CALLS
        opened = library.Run.open(server.folder / "runs" / run_id)
        result = server.client.get(f"/v1/runs/{run_id}/result").json()
        assert (opened.status, opened.best.prompt) == (run["status"], result["best"]["triage"]["prompt"])

    # Sent again: what was in flight at the kill, or was answered in the milliseconds for which the cache collects.
    known = {one.content for one in before if one.finished_s < killed_s - 0.5}
    after = [one for one in endpoint.requests if one.started_s > killed_s]
    answered = [one for one in endpoint.requests if one.status == 200]
    again = len(answered) - len({one.content for one in answered})
    print(
        f"{NUM_RUNS} runs: {len(before)} calls answered before the kill, {len(after)} sent after it, {again} of them "
        f"again; {sum(run['spent']['calls'] for run in runs)} calls counted, of {len(answered)} answered"
    )
    assert known
    assert not known & {one.content for one in after}

    status = server.gpo("status", server.folder / "runs" / ids[0], cwd=server.folder)
    assert (status.code, "completed" in status.stdout) == (0, True)

    carry_out_the_page(server)

    # A run is at work when the service ends in order: it is interrupted, and will be continued.
    endpoint.behaviour = Behaviour(latency_s=10)
    run_id = post(NUM_RUNS)
    summary = summary_of(server)
    server.wait(lambda runs: runs[0]["status"] == "running", "the last run has its turn")
    server.until(lambda: summary(run_id)["status"] == "running", "the last run works")
    assert server.end().code == 0
    assert summary(run_id)["status"] == "interrupted"
    stored = json.loads((server.folder / "runs" / run_id / "request.json").read_text("utf-8"))
    assert (stored["status"], stored["crashes"]) == (None, 0)


def is_of_runs(number: int) -> bool:
    with suppress(OSError):
        return b"RunService" in Path(f"/proc/{number}/cmdline").read_bytes()
    return False


def carry_out_the_page(server: Server) -> None:
    """Type in what ``docs/how-to/serve.md`` says about runs."""
    page = "docs/how-to/serve.md"
    (body,) = blocks(page, "json")
    (server.folder / "run.json").write_text(body, encoding="utf-8")
    start, every, status, result, stop = commands(page, "curl -s http://127.0.0.1:8000/v1/runs") + commands(
        page, "curl -s -X DELETE"
    )

    def typed(command: str, **env: str) -> dict[str, Any]:
        command = command.replace("http://127.0.0.1:8000", str(server.client.base_url).rstrip("/"))
        environment = {**os.environ, "no_proxy": "127.0.0.1", **env}
        done = subprocess.run(
            ["bash", "-c", command], cwd=server.folder, env=environment, capture_output=True, text=True, check=True
        )
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    run_id = typed(start)["id"]
    assert typed(start)["id"] == run_id
    assert typed(every)["runs"][0]["id"] == run_id
    server.wait(lambda runs: runs[0]["status"] == "completed", "the run of the page is complete")
    assert typed(status, ID=run_id)["steps"] == 2
    assert typed(result, ID=run_id)["best"]["reviews"]["prompt"]
    assert typed(stop, ID=run_id)["status"] == "completed"


def summary_of(server: Server) -> Callable[[str], dict[str, Any]]:
    def read(run_id: str) -> dict[str, Any]:
        path = server.folder / "runs" / run_id / "summary.json"
        document: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {"status": None}
        return document

    return read
