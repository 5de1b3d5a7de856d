"""The worker and the actor around it as plain objects: no cluster is started."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest

from actors.checkpoints import CheckpointStore
from actors.folder import Folder
from actors.search import Phase, Search, SearchKey, Update
from actors.trajectory_actor import TrajectoryActor, fewer
from actors.trajectory_worker import TrajectoryWorker
from gpo.checkpoint import Checkpoint
from gpo.data.task import Split
from gpo.errors import EvaluationError
from gpo.evaluation.evaluator import Evaluation
from gpo.prompt import Prompt
from gpo.strategies.stopping import StoppingRule
from gpo.testing.fakes import FakeEvaluator
from tests.optimizers import by_length, fake_optimizer

KEY, OTHER = SearchKey("desk", 0), SearchKey("desk", 1)


@dataclass(frozen=True)
class SlowStore(CheckpointStore):
    """Saves no checkpoint of the first search before ``may_save`` is set, and logs what happens."""

    saving: threading.Event = field(default_factory=threading.Event)
    may_save: threading.Event = field(default_factory=threading.Event)
    log: list[str] = field(default_factory=list)

    def write(self, key: SearchKey, content: bytes) -> None:
        # A trajectory caches properties lazily, so it is encoded in the main thread and written in another one.
        assert threading.current_thread() is not threading.main_thread()
        assert isinstance(content, bytes)
        if key == KEY:
            self.saving.set()
            assert self.may_save.wait(60)
        CheckpointStore.write(self, key, content)
        self.log.append(f"saved {key}")

    def load(self, key: SearchKey) -> Checkpoint | None:
        self.log.append(f"load {key}")
        return CheckpointStore.load(self, key)


@dataclass
class SlowEvaluator(FakeEvaluator):
    """Takes a moment, and collects prompts that it is asked for again meanwhile."""

    under_way: list[Prompt] = field(default_factory=list)
    twice: list[Prompt] = field(default_factory=list)

    async def evaluate(
        self, prompts: Sequence[Prompt], split: Split, indices: Sequence[int] | None = None
    ) -> Sequence[Evaluation]:
        self.twice += [prompt for prompt in prompts if prompt in self.under_way]
        self.under_way += prompts
        try:
            await asyncio.sleep(0.02)
            return await super().evaluate(prompts, split, indices)
        finally:
            for prompt in prompts:
                self.under_way.remove(prompt)


@dataclass
class PairedEvaluator(FakeEvaluator):
    """Answers on ``test`` only after two calls have arrived."""

    arrived: asyncio.Barrier = field(default_factory=lambda: asyncio.Barrier(2))

    async def evaluate(
        self, prompts: Sequence[Prompt], split: Split, indices: Sequence[int] | None = None
    ) -> Sequence[Evaluation]:
        if split is Split.TEST:
            await self.arrived.wait()
        return await super().evaluate(prompts, split, indices)


def worker(store: CheckpointStore, evaluator: FakeEvaluator | None = None) -> TrajectoryWorker:
    gpo = fake_optimizer(evaluator=evaluator or FakeEvaluator(by_length))
    return TrajectoryWorker([Search(key, Prompt("Which desk?"), gpo) for key in (KEY, OTHER)], store)


async def updates_of(worker: TrajectoryWorker, key: SearchKey = KEY) -> list[Update]:
    return [update async for update in worker.run(key)]


@pytest.fixture
def store() -> CheckpointStore:
    return CheckpointStore(Folder(f"memory://{uuid4().hex}"))


@pytest.fixture
def slow_store() -> SlowStore:
    return SlowStore(Folder(f"memory://{uuid4().hex}"))


async def test_updates_name_the_phases_in_order_and_end_with_the_result(store: CheckpointStore) -> None:
    updates = await updates_of(worker(store))

    phases = list(dict.fromkeys(update.phase for update in updates))
    assert phases == [Phase.INITIAL, Phase.PROPOSING, Phase.EVALUATING, Phase.TESTING, Phase.DONE]
    last = updates[-1].checkpoint
    assert last is not None
    assert len(last.trajectory.steps) == 2
    assert set(last.test) == {last.trajectory.initial.prompt.id, last.trajectory.best.prompt.id}


async def test_a_search_that_stops_early_is_tested_and_done(store: CheckpointStore) -> None:
    gpo = fake_optimizer(evaluator=FakeEvaluator(lambda _: [0.5]), stopping=StoppingRule(patience=1))
    stopping = TrajectoryWorker([Search(KEY, Prompt("Which desk?"), gpo)], store)
    updates = await updates_of(stopping)
    phases = list(dict.fromkeys(update.phase for update in updates))
    assert phases == [Phase.INITIAL, Phase.PROPOSING, Phase.EVALUATING, Phase.TESTING, Phase.DONE]
    last = updates[-1].checkpoint
    assert last is not None
    assert (len(last.trajectory.steps), len(last.test)) == (1, 1)
    # Resumed, it only reports its end.
    assert {update.phase for update in await updates_of(stopping)} == {Phase.TESTING, Phase.DONE}


async def test_updates_count_the_prompts_of_each_step_upwards(store: CheckpointStore) -> None:
    steps: dict[int, list[Update]] = {}
    taken = 0
    for update in await updates_of(worker(store)):
        taken = len(update.checkpoint.trajectory.steps) if update.checkpoint else taken
        if update.phase in (Phase.PROPOSING, Phase.EVALUATING):
            steps.setdefault(taken, []).append(update)
    for updates in steps.values():
        evaluated = [update.evaluated for update in updates]
        assert evaluated == sorted(evaluated)
        assert (updates[-1].evaluated, updates[-1].to_evaluate) == (2, 2)


async def test_a_finished_search_is_reported_again_without_any_work(store: CheckpointStore) -> None:
    first = await updates_of(worker(store))
    idle = FakeEvaluator(by_length)
    again = await updates_of(worker(store, idle))
    assert idle.calls == []
    assert again[-1] == first[-1]


async def test_the_initial_and_the_best_prompt_are_tested_concurrently(store: CheckpointStore) -> None:
    async with asyncio.timeout(20):
        updates = await updates_of(worker(store, PairedEvaluator(by_length)))
    last = updates[-1].checkpoint
    assert last is not None
    assert len(last.test) == 2
    counts = [(update.evaluated, update.to_evaluate) for update in updates if update.phase is Phase.TESTING]
    assert list(dict.fromkeys(counts)) == [(0, 0), (0, 2), (1, 2), (2, 2)]


async def test_a_second_request_for_a_search_cancels_the_first(store: CheckpointStore) -> None:
    evaluator = SlowEvaluator(by_length)
    shared = worker(store, evaluator)
    started = asyncio.Event()

    async def follow_the_first() -> None:
        async for update in shared.run(KEY):
            if update.checkpoint is not None:
                started.set()
                await asyncio.sleep(3600)  # a caller that receives nothing any more, and has not closed the call

    first = asyncio.create_task(follow_the_first())
    await started.wait()
    updates = await updates_of(shared)
    first.cancel()
    await asyncio.wait([first])

    assert updates[-1].phase is Phase.DONE
    assert evaluator.twice == []


async def test_a_search_that_takes_over_waits_for_a_checkpoint_that_is_being_saved(slow_store: SlowStore) -> None:
    shared = worker(slow_store)
    first = asyncio.create_task(updates_of(shared))
    assert await asyncio.to_thread(slow_store.saving.wait, 60)
    second = asyncio.create_task(updates_of(shared))
    for _ in range(20):
        await asyncio.sleep(0)
    assert slow_store.log == [f"load {KEY}"]
    slow_store.may_save.set()
    assert (await second)[-1].phase is Phase.DONE
    assert slow_store.log[:3] == [f"load {KEY}", f"saved {KEY}", f"load {KEY}"]
    first.cancel()
    await asyncio.wait([first])


async def test_other_searches_continue_while_one_is_being_saved(slow_store: SlowStore) -> None:
    shared = worker(slow_store)
    first = asyncio.create_task(updates_of(shared))
    assert await asyncio.to_thread(slow_store.saving.wait, 60)
    assert (await updates_of(shared, OTHER))[-1].phase is Phase.DONE
    assert not first.done()
    slow_store.may_save.set()
    assert (await first)[-1].phase is Phase.DONE


async def test_a_stopped_worker_starts_no_search(store: CheckpointStore) -> None:
    evaluator = SlowEvaluator(by_length)
    stopped = worker(store, evaluator)
    assert await stopped.stop()
    with pytest.raises(asyncio.CancelledError):
        await updates_of(stopped)
    assert evaluator.under_way == []


@pytest.mark.parametrize("is_idle", [True, False])
async def test_an_actor_calls_its_hook_once_before_it_ends_and_not_while_it_can_be_reused(is_idle: bool) -> None:
    class Worker:
        async def stop(self) -> bool:
            return is_idle

    async def started() -> Any:
        return Worker()

    log: list[str] = []
    actor = TrajectoryActor(on_start=lambda: lambda: log.append("ended"))
    actor._worker = asyncio.create_task(started())
    assert await actor.stop(ends=False) == is_idle
    assert log == ([] if is_idle else ["ended"])
    if is_idle:
        assert await actor.stop(ends=True)
        assert log == ["ended"]


async def test_few_updates_are_sent_of_those_that_only_say_how_far_a_step_has_come(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = (await updates_of(worker(store)))[-1]
    assert last.checkpoint is not None
    given = [Update(KEY, Phase.EVALUATING, number, 30) for number in range(30)]
    closed = asyncio.Event()

    async def updates(pause_s: float) -> AsyncGenerator[Update]:
        try:
            for update in given:
                await asyncio.sleep(pause_s)
                yield update
            yield last
            yield given[0]
        finally:
            closed.set()

    monkeypatch.setattr("actors.trajectory_actor._PROGRESS_EVERY_S", 3600.0)
    assert [update async for update in fewer(updates(0.0))] == [given[0], last]
    assert closed.is_set()
    monkeypatch.setattr("actors.trajectory_actor._PROGRESS_EVERY_S", 0.001)
    assert [update async for update in fewer(updates(0.01))][:31] == [*given, last]


async def test_a_failure_ends_the_updates() -> None:
    async def failing() -> AsyncGenerator[Update]:
        yield Update(KEY, Phase.EVALUATING, 1, 2)
        raise EvaluationError("a defect")

    with pytest.raises(EvaluationError, match="a defect"):
        [update async for update in fewer(failing())]
