"""The worker as a plain class: no cluster is started."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from actors.checkpoints import CheckpointStore
from actors.folder import Folder
from actors.search import Phase, Search, SearchKey, Update
from actors.trajectory_actor import TrajectoryActor
from actors.trajectory_worker import TrajectoryWorker
from gpo.data.task import Split
from gpo.evaluation.evaluator import Evaluation
from gpo.optimizer import GPO
from gpo.prompt import Prompt
from gpo.strategies.acceptance import BestOfStep
from gpo.strategies.batches import TrainBatches
from gpo.strategies.reflection import NoReflection
from gpo.strategies.retrieval import RecencyRetriever
from gpo.strategies.schedule import FixedSchedule
from gpo.strategies.summary import NoSummary
from gpo.testing.fakes import FakeEvaluator, FakeProposer

KEY = SearchKey("desk", 0)


def worker(evaluator: FakeEvaluator, folder: Path) -> TrajectoryWorker:
    gpo = GPO(
        retriever=RecencyRetriever(),
        reflector=NoReflection(),
        summarizer=NoSummary(),
        schedule=FixedSchedule(size=5),
        proposer=FakeProposer(lambda current, n, _: [f"{current.prompt.text} {index}" for index in range(n)]),
        evaluator=evaluator,
        acceptance=BestOfStep(),
        num_steps=2,
        num_candidates=2,
        num_neighbours=1,
        train=(),
        batches=TrainBatches(1, 1, seed=0),
        num_exemplars=0,
        seed=0,
    )
    return TrajectoryWorker([Search(KEY, Prompt("Which desk?"), gpo)], CheckpointStore(Folder(str(folder))))


@dataclass
class SlowEvaluator(FakeEvaluator):
    """Takes its time, and notes what it is asked for while it is at work on the same."""

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


def by_length(prompt: Prompt) -> list[float]:
    return [len(prompt.words) / 10]


async def test_news_tell_the_phases_in_order_and_end_with_the_result(tmp_path: Path) -> None:
    updates = [update async for update in worker(FakeEvaluator(by_length), tmp_path).run(KEY)]

    phases = list(dict.fromkeys(update.phase for update in updates))
    assert phases == [Phase.INITIAL, Phase.PROPOSING, Phase.EVALUATING, Phase.TESTING, Phase.DONE]
    last = updates[-1].checkpoint
    assert last is not None
    assert len(last.trajectory.steps) == 2
    assert set(last.test) == {last.trajectory.initial.prompt.id, last.trajectory.best.prompt.id}


async def test_a_finished_search_only_says_so(tmp_path: Path) -> None:
    first = [update async for update in worker(FakeEvaluator(by_length), tmp_path).run(KEY)]
    idle = FakeEvaluator(by_length)

    again = [update async for update in worker(idle, tmp_path).run(KEY)]

    assert idle.calls == []
    assert again[-1] == first[-1]


async def test_who_asks_again_takes_the_search_over(tmp_path: Path) -> None:
    evaluator = SlowEvaluator(by_length)
    shared = worker(evaluator, tmp_path)
    lost, started = shared.run(KEY), asyncio.Event()

    async def follow_the_first() -> None:
        async for update in lost:
            if update.checkpoint is not None:
                started.set()
                await asyncio.sleep(3600)  # its caller does not listen any more, and has not gone either

    first = asyncio.create_task(follow_the_first())
    await started.wait()
    updates: list[Update] = [update async for update in shared.run(KEY)]
    first.cancel()
    await asyncio.wait([first])

    assert updates[-1].phase is Phase.DONE
    assert evaluator.twice == []


@dataclass
class PairedEvaluator(FakeEvaluator):
    """Answers for nobody on ``test`` before two have asked."""

    asked: asyncio.Barrier = field(default_factory=lambda: asyncio.Barrier(2))

    async def evaluate(
        self, prompts: Sequence[Prompt], split: Split, indices: Sequence[int] | None = None
    ) -> Sequence[Evaluation]:
        if split is Split.TEST:
            await self.asked.wait()
        return await super().evaluate(prompts, split, indices)


async def test_both_ends_are_tested_side_by_side(tmp_path: Path) -> None:
    async with asyncio.timeout(20):
        updates = [update async for update in worker(PairedEvaluator(by_length), tmp_path).run(KEY)]
    last = updates[-1].checkpoint
    assert last is not None
    assert len(last.test) == 2
    counts = [(update.evaluated, update.to_evaluate) for update in updates if update.phase is Phase.TESTING]
    assert list(dict.fromkeys(counts)) == [(0, 0), (0, 2), (1, 2), (2, 2)]


async def test_news_count_the_prompts_of_a_step_and_never_back(tmp_path: Path) -> None:
    updates = [update async for update in worker(FakeEvaluator(by_length), tmp_path).run(KEY)]
    steps: dict[int, list[Update]] = {}
    taken = 0
    for update in updates:
        taken = len(update.checkpoint.trajectory.steps) if update.checkpoint else taken
        if update.phase in (Phase.PROPOSING, Phase.EVALUATING):
            steps.setdefault(taken, []).append(update)
    for news in steps.values():
        evaluated = [update.evaluated for update in news]
        assert evaluated == sorted(evaluated)
        assert (news[-1].evaluated, news[-1].to_evaluate) == (2, 2)


async def test_nothing_begins_after_a_worker_was_stopped(tmp_path: Path) -> None:
    evaluator = SlowEvaluator(by_length)
    stopped = worker(evaluator, tmp_path)
    assert await stopped.stop()
    with pytest.raises(asyncio.CancelledError):
        async for _ in stopped.run(KEY):
            pass
    assert evaluator.under_way == []


@pytest.mark.parametrize("is_at_nothing", [True, False])
async def test_an_actor_that_is_ended_says_so_once_and_one_that_can_be_used_again_does_not(is_at_nothing: bool) -> None:
    class Worker:
        async def stop(self) -> bool:
            return is_at_nothing

    async def begun() -> Any:
        return Worker()

    said: list[str] = []
    actor = TrajectoryActor(on_start=lambda: lambda: said.append("ended"))
    actor._worker = asyncio.create_task(begun())
    assert await actor.stop(ends=False) == is_at_nothing
    assert said == ([] if is_at_nothing else ["ended"])
    if is_at_nothing:
        assert await actor.stop(ends=True)
        assert said == ["ended"]
