"""The service of runs in this process; the actor and the HTTP interface are in ``tests/e2e/test_serve_runs.py``."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import gpo
from benchmarks.simulated_endpoint import Behaviour
from cluster.results.stored_run import RunReader, StoredRun
from cluster.serving.runs import REQUEST_FILE, RunService
from gpo.errors import ConfigError
from serve.http_schemas import ResultReply, RunReply
from serve.runs import NoResult, RefusedRun, TooManyRuns, UnknownRun
from tests.unit.cluster.serving.requests import posted, posted_task, service_config, settings

if TYPE_CHECKING:
    from benchmarks.simulated_endpoint import SimulatedEndpoint

ENDED = ("completed", "interrupted", "budget_exhausted", "failed")


@asynccontextmanager
async def serving(endpoint: SimulatedEndpoint, folder: Path, **changes: Any) -> AsyncIterator[RunService]:
    """A service that ends in order."""
    config = service_config(endpoint.base_url, folder)
    service = RunService(settings(config, folder / "runs", **changes))
    await service.open()
    try:
        yield service
    finally:
        await service.close()


async def reached(service: RunService, run_id: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            document = await service.status(run_id)
            RunReply.model_validate(document)
            if condition(document):
                return document
            await asyncio.sleep(0.05)


async def ended(service: RunService, run_id: str) -> dict[str, Any]:
    return await reached(service, run_id, lambda document: document["status"] in ENDED)


async def test_a_run_is_carried_out_with_the_examples_of_the_request(
    endpoint: SimulatedEndpoint, tmp_path: Path
) -> None:
    async with serving(endpoint, tmp_path) as service:
        accepted = await service.submit(posted(), "a")
        assert (accepted["status"], accepted["steps"]) in (("pending", 0), ("running", 0))
        document = await ended(service, accepted["id"])
        assert (document["status"], document["error"], document["steps"], document["of_steps"]) == (
            "completed", None, 1, 1
        )  # fmt: skip
        result = await service.result(accepted["id"])
        ResultReply.model_validate(result)
        assert result["best"]["triage"]["val"] == document["best"]["triage"]
        assert result["summary"]["spent"] == document["spent"]
        assert document["spent"]["calls"] == len(endpoint.requests)
        (listed,) = await service.listed()
        assert listed == {**document, "trajectories": []}
    # The folder is that of ``gpo run``.
    run = gpo.Run.open(tmp_path / "runs" / accepted["id"])
    assert (run.id, run.status, run.best.prompt) == (accepted["id"], "completed", result["best"]["triage"]["prompt"])


async def test_a_repeated_request_starts_no_second_run(endpoint: SimulatedEndpoint, tmp_path: Path) -> None:
    async with serving(endpoint, tmp_path) as service:
        first, again = await asyncio.gather(service.submit(posted(), "a"), service.submit(posted(), "a"))
        assert first["id"] == again["id"]
        with pytest.raises(RefusedRun, match=first["id"]):
            await service.submit(posted(optimizer={"steps": 2}), "a")
        other = await service.submit(posted(), "b")
        assert other["id"] != first["id"]
        await ended(service, first["id"])
    async with serving(endpoint, tmp_path) as service:  # known after a restart, too
        assert (await service.submit(posted(), "a"))["id"] == first["id"]
        assert len(await service.listed()) == 2


async def test_runs_wait_for_their_turn(endpoint: SimulatedEndpoint, tmp_path: Path) -> None:
    endpoint.behaviour = Behaviour(latency_s=0.05)
    async with serving(endpoint, tmp_path, max_runs=1) as service:
        ids = [(await service.submit(posted(), key))["id"] for key in "abc"]
        await reached(service, ids[0], lambda document: document["status"] == "running")
        assert [run["status"] for run in await service.listed()] == ["pending", "pending", "running"]
        stopped = await service.stop(ids[1])
        assert (stopped["status"], stopped["spent"]["calls"]) == ("interrupted", 0)
        assert (await ended(service, ids[0]))["status"] == "completed"
        assert (await ended(service, ids[2]))["status"] == "completed"
        with pytest.raises(NoResult):
            await service.result(ids[1])


async def test_too_many_runs_are_refused(
    endpoint: SimulatedEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.serving.runs._MAX_WAITING", 0)
    endpoint.behaviour = Behaviour(latency_s=60)
    async with serving(endpoint, tmp_path, max_runs=1) as service:
        with pytest.raises(TooManyRuns, match="wait already"):
            await service.submit(posted(), "a")


async def test_a_stopped_run_is_not_resumed_and_an_interrupted_one_is(
    endpoint: SimulatedEndpoint, tmp_path: Path
) -> None:
    endpoint.behaviour = Behaviour(latency_s=0.2)
    async with serving(endpoint, tmp_path) as service:
        long = [posted(run={"seeds": [seed]}, optimizer={"steps": 8}) for seed in range(3)]
        stopped, asked, cut = [(await service.submit(body, str(body["run"])))["id"] for body in long]
        for run_id in (stopped, asked, cut):
            await reached(service, run_id, lambda document: document["spent"]["calls"] > 0)
        assert (await service.stop(stopped))["status"] == "interrupted"
        assert (await service.stop(stopped))["status"] == "interrupted"  # again, without effect
        (tmp_path / "runs" / asked / "stop").touch()  # as ``gpo stop`` does
        assert (await ended(service, asked))["status"] == "interrupted"
    interrupted_s = time.monotonic()
    assert gpo.Run.open(tmp_path / "runs" / cut).status == "interrupted"
    endpoint.behaviour = Behaviour()
    async with serving(endpoint, tmp_path) as service:
        assert (await ended(service, cut))["status"] == "completed"
        assert [(await service.status(run_id))["status"] for run_id in (stopped, asked)] == ["interrupted"] * 2
    # What was not in flight is not paid for again.
    known = {one.content for one in endpoint.requests if one.status == 200 and one.finished_s < interrupted_s - 1}
    assert known
    assert not known & {one.content for one in endpoint.requests if one.started_s > interrupted_s}


async def test_a_stop_file_that_the_service_did_not_see_is_heeded(endpoint: SimulatedEndpoint, tmp_path: Path) -> None:
    async with serving(endpoint, tmp_path) as service:
        run_id = (await service.submit(posted(), "a"))["id"]
    folder = tmp_path / "runs" / run_id
    (folder / "stop").touch()
    async with serving(endpoint, tmp_path) as service:
        assert (await service.status(run_id))["status"] == "interrupted"


async def test_a_run_that_kills_the_service_is_given_up(endpoint: SimulatedEndpoint, tmp_path: Path) -> None:
    async with serving(endpoint, tmp_path) as service:
        run_id = (await service.submit(posted(), "a"))["id"]
    path = tmp_path / "runs" / run_id / REQUEST_FILE
    request = json.loads(path.read_text())
    assert request["crashes"] == 0  # the service has ended in order
    path.write_text(json.dumps({**request, "crashes": 5}))
    async with serving(endpoint, tmp_path) as service:
        document = await service.status(run_id)
        assert (document["status"], "died 5 times" in document["error"]) == ("failed", True)


async def test_a_run_that_fails_says_why(endpoint: SimulatedEndpoint, tmp_path: Path) -> None:
    endpoint.behaviour = Behaviour(fail_next=1000, error_status=401)
    async with serving(endpoint, tmp_path) as service:
        run_id = (await service.submit(posted(), "a"))["id"]
        document = await ended(service, run_id)
        assert document["status"] == "failed"
        assert document["error"].startswith("models.task.api_key_env: ")
        with pytest.raises(NoResult):
            await service.result(run_id)
    endpoint.behaviour = Behaviour()
    before = len(endpoint.requests)
    async with serving(endpoint, tmp_path) as service:
        assert await service.status(run_id) == document
    assert len(endpoint.requests) == before


async def test_an_end_is_not_said_of_a_folder_that_was_read_before_it(
    endpoint: SimulatedEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, begun, may_return = RunReader.read, threading.Event(), threading.Event()

    def read_late(reader: RunReader) -> StoredRun:
        stored = read(reader)
        begun.set()
        may_return.wait(60)
        return stored

    endpoint.behaviour = Behaviour(latency_s=0.05)
    async with serving(endpoint, tmp_path) as service:
        run_id = (await service.submit(posted(), "a"))["id"]
        await reached(service, run_id, lambda document: document["trajectories"])
        monkeypatch.setattr(RunReader, "read", read_late)
        early = asyncio.create_task(service.status(run_id))
        assert await asyncio.to_thread(begun.wait, 60)
        monkeypatch.setattr(RunReader, "read", read)
        last = await ended(service, run_id)
        may_return.set()
        assert (await early)["status"] == "running"
        assert last["status"] == "completed"
        assert last["wall_s"] > 0


async def test_each_run_keeps_its_budget(endpoint: SimulatedEndpoint, tmp_path: Path) -> None:
    async with serving(endpoint, tmp_path) as service:
        runs = [
            (await service.submit(posted(budget={"calls": 10}, run={"seeds": [seed]}), f"{seed}"))["id"]
            for seed in range(3)
        ]
        for run_id in runs:
            document = await ended(service, run_id)
            assert (document["status"], document["spent"]["calls"]) == ("budget_exhausted", 10)
            assert document["ended_by"].startswith("budget.calls")


async def test_what_cannot_be_used_is_refused_and_leaves_nothing_behind(
    endpoint: SimulatedEndpoint, tmp_path: Path
) -> None:
    async with serving(endpoint, tmp_path) as service:
        for body, problem in (
            (posted(optimiser={}), "did you mean 'optimizer'"),
            (posted_task(data={"val": [{"text": "x"}]}), "label"),
            (posted_task(data={"val": [{"text": b""}]}), "values that JSON has not"),
            ({"tasks": []}, "tasks"),
        ):
            with pytest.raises(RefusedRun, match=problem):
                await service.submit(body, "a")
        assert await service.listed() == []
        assert [path.name for path in (tmp_path / "runs").iterdir()] == [".lease"]
        with pytest.raises(UnknownRun):
            await service.status("../runs")
    assert endpoint.requests == []


async def test_two_services_cannot_share_a_folder(endpoint: SimulatedEndpoint, tmp_path: Path) -> None:
    async with serving(endpoint, tmp_path):
        with pytest.raises(ConfigError, match=r"--runs-dir: .* is in use"):
            async with serving(endpoint, tmp_path):
                pass
