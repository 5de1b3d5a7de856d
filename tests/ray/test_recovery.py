"""Kills parts of a run while the rest continues: real processes, real Serve, calls over HTTP."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from actors.checkpoints import CheckpointStore
from actors.failure_policy import Fault
from actors.folder import Folder
from actors.limiter import LimiterActor
from actors.search import Phase, SearchKey, Update
from actors.slots import Placement
from actors.supervisor import Supervisor
from actors.trajectory_worker import TrajectoryWorker
from benchmarks.measuring.access_log import repeats
from benchmarks.simulated_endpoint import AccessRecord, Behaviour, SimulatedEndpoint
from cluster.config import RunConfig
from cluster.runs.searches import build_searches
from cluster.session.deployments import deployed, start_serve
from cluster.session.embedded import EmbeddedModels
from cluster.session.models import Access, build_evaluators, build_tasks
from cluster.session.ray_connection import ray_connection
from gpo.checkpoint import Checkpoint
from gpo.limits.limiter import LocalLimiter
from gpo.limits.messages import Budget, Spent
from gpo.models.endpoint import Endpoint
from gpo.models.openai import openai_model
from gpo.models.protocol import Sampling
from serve.client import ServeEvaluator
from serve.embedded_model import EmbeddedModelSpec
from serve.evaluator import evaluator_app

if TYPE_CHECKING:
    from tests.ray.conftest import MakeConfig, Pids

LATENCY_S = 0.1


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with ray_connection("local", cpus_needed=4):
        start_serve()
        yield


@pytest.fixture
def endpoint() -> Iterator[SimulatedEndpoint]:
    with SimulatedEndpoint(Behaviour(latency_s=LATENCY_S)) as running:
        yield running


@contextmanager
def _prepared(config: RunConfig, checkpoints: Path) -> Iterator[tuple[Supervisor, Access]]:
    """The supervisor of a run whose evaluator is running, and the access to its models."""
    tasks = build_tasks(config)
    access = Access({}, LimiterActor(), budget_name=config.run.name)
    evaluators = build_evaluators(config, tasks, access)
    cpus = config.cluster.evaluator_cpus
    app = evaluator_app(evaluators, replicas=config.num_replicas, examples_at_once=300, cpus=cpus, drain_s=0)
    with deployed(app, config.run.name, route_prefix=None) as handle:
        asked = {task.name: ServeEvaluator(handle, task.name) for task in tasks}
        searches = build_searches(config, tasks, asked, access)
        spread = Placement(config.trajectories_per_actor, config.cluster.actor_cpus, config.cluster.actor_restarts)
        yield Supervisor(searches, CheckpointStore(Folder(str(checkpoints))), spread), access


async def _finals(updates: AsyncGenerator[Update, None]) -> dict[SearchKey, Update]:
    async with aclosing(updates) as stream:
        return {update.key: update async for update in stream if update.phase is Phase.DONE}


def _results(checkpoint: Checkpoint | None) -> Any:
    """The results of a trajectory without its costs."""
    assert checkpoint is not None
    trajectory = checkpoint.trajectory
    steps = [(step.candidates, step.successor, step.direction) for step in trajectory.steps]
    return trajectory.initial, steps, {prompt: test.score for prompt, test in checkpoint.test.items()}


@dataclass
class Killing:
    """Kills processes one after another, each after ``after`` more calls."""

    endpoint: SimulatedEndpoint
    pids: Pids
    titles: Sequence[str]
    after: int
    killed: list[tuple[str, float]] = field(default_factory=list)

    async def run(self) -> None:
        seen = 0
        for title in self.titles:
            seen += self.after
            while len(self.endpoint.requests) < seen:  # noqa: ASYNC110  # the endpoint is in another thread
                await asyncio.sleep(0.005)
            number = self.pids(title)[0]
            self.killed.append((title, time.monotonic()))
            os.kill(number, signal.SIGKILL)


def _repeated(calls: Sequence[AccessRecord], killed: Sequence[float]) -> int:
    """Calls that were repeated although they were answered, and no part was killed during or just after them."""
    ends = [(kill, kill) for kill in killed]
    return sum(repeats(calls, ends, model).beyond for model in ("task-model", "opt-model"))


async def _undisturbed(config: RunConfig, checkpoints: Path) -> dict[SearchKey, Any]:
    """The results of the same searches in this process."""
    tasks, access = build_tasks(config), Access({}, LocalLimiter(), budget_name="undisturbed")
    evaluators = {one.task.name: one for one in build_evaluators(config, tasks, access)}
    searches = build_searches(config, tasks, evaluators, access)
    worker = TrajectoryWorker(searches, CheckpointStore(Folder(str(checkpoints))))
    found = {}
    for search in searches:
        async for update in worker.run(search.key):
            found[search.key] = update
    return {key: _results(update.checkpoint) for key, update in found.items()}


@pytest.mark.usefixtures("cluster")
async def test_killed_parts_restart_and_nothing_is_lost_or_repeated(
    endpoint: SimulatedEndpoint, make_config: MakeConfig, pids: Pids, tmp_path: Path
) -> None:
    endpoint.behaviour = Behaviour()
    undisturbed = await _undisturbed(make_config(tmp_path / "calm", endpoint.base_url), tmp_path / "calm-checkpoints")
    num_calls = len(endpoint.requests)
    endpoint.requests.clear()
    endpoint.behaviour = Behaviour(latency_s=LATENCY_S)

    parts = [
        "ray::TrajectoryActor",
        "ray::ServeReplica",
        "ray::SharedLimiter",
        "ray::ServeController",
        "ray::ServeReplica",
    ]
    killing = Killing(endpoint, pids, parts, after=75)
    config = make_config(tmp_path / "killed", endpoint.base_url)
    with _prepared(config, tmp_path / "checkpoints") as (supervisor, access):
        await access.limiter.open_budget(access.budget_name, Budget(), Spent())
        async with asyncio.timeout(120):
            killer = asyncio.create_task(killing.run())
            finals = await _finals(supervisor.run())
            await killer
    _print_gaps(killing, endpoint.requests)
    assert {key: update.error for key, update in finals.items()} == dict.fromkeys(finals)
    assert {key: _results(update.checkpoint) for key, update in finals.items()} == undisturbed
    assert supervisor.faults == {Fault.CRASH: 1}, "the other parts restart without interrupting a trajectory"
    assert _repeated(endpoint.requests, [kill for _, kill in killing.killed]) == 0
    in_flight = 2 * 8  # as many as each model's concurrency allows, at each kill
    assert num_calls <= len(endpoint.requests) <= num_calls + in_flight * len(parts)


def _print_gaps(killing: Killing, calls: Sequence[AccessRecord]) -> None:
    finished = sorted(call.finished_s for call in calls)
    ends = [kill for _, kill in killing.killed[1:]] + [finished[-1]]
    for (title, kill), end in zip(killing.killed, ends, strict=True):
        times = [kill, *(moment for moment in finished if kill < moment <= end)]
        longest = max(later - earlier for earlier, later in pairwise(times))
        print(f"{title}: no reply for {longest:.1f} s at most")


@pytest.mark.usefixtures("cluster")
async def test_a_cancelled_run_makes_no_more_calls(
    endpoint: SimulatedEndpoint, make_config: MakeConfig, tmp_path: Path
) -> None:
    (tmp_path / "given-up").mkdir()
    config = make_config(tmp_path / "given-up", endpoint.base_url, evaluation={"val_size": 60, "test_size": 1})
    with _prepared(config, tmp_path / "checkpoints") as (supervisor, access):
        await access.limiter.open_budget(access.budget_name, Budget(), Spent())

        async def follow() -> None:
            await _finals(supervisor.run())

        following = asyncio.create_task(follow())
        await _until(lambda: len(endpoint.requests) >= 20)
        endpoint.behaviour = Behaviour(latency_s=8.0)  # a caller that was not cancelled still waits for its reply
        await _until(lambda: _in_flight(endpoint) > 0)
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following
        # The evaluator is still running, so its calls were cancelled and did not end with it.
        await _until(lambda: _in_flight(endpoint) == 0)
        ended = len(endpoint.requests)
        await asyncio.sleep(2.5)
        assert len(endpoint.requests) == ended, "calls were made for a cancelled search"
        assert endpoint.requests[-1].status == 499


def _in_flight(endpoint: SimulatedEndpoint) -> int:
    return endpoint._service._in_flight


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  # the endpoint is in another thread
            await asyncio.sleep(0.01)


@pytest.mark.usefixtures("cluster")
async def test_a_killed_embedded_model_restarts_at_its_port(pids: Pids) -> None:
    spec = EmbeddedModelSpec(None, parallel=2, context=256, threads=1)
    with EmbeddedModels([spec]) as models:
        models.wait()
        endpoint = Endpoint(models.urls[spec], spec.name, max_concurrency=2)
        model = openai_model(endpoint)

        async def ask(number: int) -> str:
            question = {"role": "user", "content": f"Say {number}."}
            return (await model.complete([question], Sampling(temperature=0.0, max_tokens=2))).text

        async with endpoint.client, asyncio.timeout(120):
            assert await ask(0)
            (server,) = pids("ray::EmbeddedModelServer")
            killed = time.monotonic()
            os.kill(server, signal.SIGKILL)
            assert all(await asyncio.gather(*(ask(number) for number in range(1, 4))))
            print(f"ray::EmbeddedModelServer: no reply for {time.monotonic() - killed:.1f} s")
            assert pids("ray::EmbeddedModelServer") != [server]
