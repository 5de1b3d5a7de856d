"""A store that takes its time, and the searches that wait for it."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from uuid import uuid4

import pytest

from actors.checkpoints import CheckpointStore
from actors.folder import Folder
from actors.search import Phase, Search, SearchKey, Update
from actors.trajectory_worker import TrajectoryWorker
from gpo.checkpoint import Checkpoint
from gpo.optimizer import GPO
from gpo.prompt import Prompt
from gpo.strategies.acceptance import BestOfStep
from gpo.strategies.batches import TrainBatches
from gpo.strategies.reflection import NoReflection
from gpo.strategies.retrieval import RecencyRetriever
from gpo.strategies.schedule import FixedSchedule
from gpo.strategies.summary import NoSummary
from gpo.testing.fakes import FakeEvaluator, FakeProposer

KEYS = SearchKey("desk", 0), SearchKey("desk", 1)


@dataclass(frozen=True)
class HeldStore(CheckpointStore):
    """Saves no checkpoint of the first search before it is let go on."""

    saving: threading.Event = field(default_factory=threading.Event)
    let_go_on: threading.Event = field(default_factory=threading.Event)
    said: list[str] = field(default_factory=list)

    def write(self, key: SearchKey, content: bytes) -> None:
        # A trajectory keeps what it reckons once: read by two threads, it would change under the hands of one.
        assert threading.current_thread() is not threading.main_thread()
        assert isinstance(content, bytes)
        if key == KEYS[0]:
            self.saving.set()
            assert self.let_go_on.wait(60)
        CheckpointStore.write(self, key, content)
        self.said.append(f"saved {key}")

    def load(self, key: SearchKey) -> Checkpoint | None:
        self.said.append(f"loads {key}")
        return CheckpointStore.load(self, key)


@pytest.fixture
def store() -> HeldStore:
    return HeldStore(Folder(f"memory://{uuid4().hex}"))


def worker(store: CheckpointStore) -> TrajectoryWorker:
    gpo = GPO(
        retriever=RecencyRetriever(),
        reflector=NoReflection(),
        summarizer=NoSummary(),
        schedule=FixedSchedule(size=5),
        proposer=FakeProposer(lambda current, n, _: [f"{current.prompt.text} {index}" for index in range(n)]),
        evaluator=FakeEvaluator(lambda prompt: [len(prompt.words) / 10]),
        acceptance=BestOfStep(),
        num_steps=2,
        num_candidates=2,
        num_neighbours=1,
        train=(),
        batches=TrainBatches(1, 1, seed=0),
        num_exemplars=0,
        seed=0,
    )
    return TrajectoryWorker([Search(key, Prompt("Which desk?"), gpo) for key in KEYS], store)


async def updates(worker: TrajectoryWorker, key: SearchKey) -> list[Update]:
    return [update async for update in worker.run(key)]


async def test_while_one_search_is_saved_others_go_on(store: HeldStore) -> None:
    shared = worker(store)
    held = asyncio.create_task(updates(shared, KEYS[0]))
    assert await asyncio.to_thread(store.saving.wait, 60)
    assert (await updates(shared, KEYS[1]))[-1].phase is Phase.DONE
    assert not held.done()
    store.let_go_on.set()
    assert (await held)[-1].phase is Phase.DONE


async def test_who_takes_a_search_over_is_not_overtaken_by_what_is_still_being_saved(store: HeldStore) -> None:
    shared = worker(store)
    first = asyncio.create_task(updates(shared, KEYS[0]))
    assert await asyncio.to_thread(store.saving.wait, 60)
    second = asyncio.create_task(updates(shared, KEYS[0]))
    for _ in range(20):
        await asyncio.sleep(0)
    assert store.said == [f"loads {KEYS[0]}"]
    store.let_go_on.set()
    assert (await second)[-1].phase is Phase.DONE
    assert store.said[:3] == [f"loads {KEYS[0]}", f"saved {KEYS[0]}", f"loads {KEYS[0]}"]
    first.cancel()
    await asyncio.wait([first])
