"""Searches that stop at any call and resume from their checkpoint: their results, and the calls that are repeated."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest

from actors.checkpoints import CheckpointStore
from actors.folder import Folder
from actors.search import Search, SearchKey
from actors.trajectory_worker import TrajectoryWorker
from benchmarks.simulated.models import SimulatedModel
from cluster.config.loading import validate
from cluster.runs.searches import build_gpo
from cluster.session.models import SampledModel, build_tasks
from gpo.cache.store import Missing
from gpo.checkpoint import Checkpoint
from gpo.evaluation.evaluator import LocalEvaluator
from gpo.evaluation.grading import RuleGrader
from gpo.models.cached import CachedModel, completion_key
from gpo.models.protocol import ChatModel, Completion, Message, Sampling
from gpo.testing.fakes import WordEmbedder
from tests.paths import TRIAGE

KEY = SearchKey("triage", 0)
CONFIG = validate(
    {
        "models": {role: {"base_url": "http://127.0.0.1:9/v1", "model": "a-model"} for role in ("task", "optimizer")},
        "tasks": [
            {
                "name": "triage",
                "data": {split: str(TRIAGE / f"{split}.jsonl") for split in ("train", "val", "test")},
                "fields": {"input": "text", "target": "label"},
                "prompt": "Classify the support ticket into one of: billing, technical, shipping, account.",
                "answer": {"kind": "exact"},
            }
        ],
        "optimizer": {
            "steps": 3,
            "candidates": 3,
            "batch_size": 3,
            "direction": {"form": "score_reflection", "trajectory": {"kind": "summary"}},
        },
        "evaluation": {"val_size": 4, "test_size": 4},
    },
    base_dir=Path("/"),
)
(TASK,) = build_tasks(CONFIG)


@dataclass
class StoppingModel:
    """A model that answers, and counts, only the calls before a given one."""

    stop_at: int | None = None
    answered: Counter[bytes] = field(default_factory=Counter[bytes])
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0

    async def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        self.asked += 1
        if self.stop_at is not None and self.asked >= self.stop_at:
            self.stopped.set()
            await asyncio.Event().wait()
        completion = await SimulatedModel().complete(messages, sampling)
        self.answered[completion_key({}, messages, sampling)] += 1
        return completion


@dataclass
class DictStore:
    """A completion store that outlives a search."""

    kept: dict[bytes, Completion] = field(default_factory=dict[bytes, Completion])

    async def find(self, key: bytes) -> Completion | Missing:
        return self.kept.get(key, Missing.CLAIMED)

    async def put(self, key: bytes, completion: Completion) -> None:
        self.kept[key] = completion

    async def release(self, key: bytes) -> None:
        """Nothing to do: there is no other process."""


async def search(
    folder: Folder,
    optimizer: ChatModel,
    task_model: ChatModel,
    stopped: asyncio.Event,
    stop_after: Callable[[Checkpoint], bool] = lambda _: False,
) -> Checkpoint | None:
    """Search to the end, or until a model or ``stop_after`` stops it; returns the last checkpoint."""
    evaluator = LocalEvaluator(TASK, task_model, Sampling(temperature=0), RuleGrader(TASK.scorer))
    sampled = SampledModel(optimizer, Sampling(temperature=1.0))
    store = CheckpointStore(folder)
    gpo = build_gpo(CONFIG, TASK, 0, evaluator, sampled, WordEmbedder())
    worker = TrajectoryWorker([Search(KEY, TASK.initial, gpo)], store)

    async def follow() -> None:
        async for update in worker.run(KEY):
            if update.checkpoint is not None and stop_after(update.checkpoint):
                stopped.set()
                await asyncio.Event().wait()

    parts = [asyncio.create_task(follow()), asyncio.create_task(stopped.wait())]
    await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
    for part in parts:
        part.cancel()
    await asyncio.wait(parts)
    return store.load(KEY)


def found(checkpoint: Checkpoint | None) -> object:
    """The result of a search, without its cost."""
    assert checkpoint is not None
    steps = [(step.direction, step.candidates, step.successor, step.step_size) for step in checkpoint.trajectory.steps]
    return steps, {prompt: evaluation.score for prompt, evaluation in checkpoint.test.items()}


async def undisturbed() -> tuple[Checkpoint, StoppingModel]:
    """An uninterrupted search, and its calls of the optimizer model."""
    optimizer = StoppingModel()
    whole = await search(Folder(f"memory://{uuid4().hex}"), optimizer, SimulatedModel(), asyncio.Event())
    assert whole is not None
    assert len(whole.trajectory.steps) == 3
    assert optimizer.asked == 3 * 3 + 3 + 2  # proposals, reflections, summaries
    return whole, optimizer


async def test_a_search_stopped_at_any_optimizer_call_repeats_no_answered_call() -> None:
    whole, bought = await undisturbed()
    for call in range(1, bought.asked + 1):
        folder, cache = Folder(f"memory://{uuid4().hex}"), DictStore()
        first, second = StoppingModel(call), StoppingModel()
        await search(folder, CachedModel(first, cache, {}), SimulatedModel(), first.stopped)
        resumed = await search(folder, CachedModel(second, cache, {}), SimulatedModel(), second.stopped)
        assert found(resumed) == found(whole), call
        assert first.answered + second.answered == bought.answered, call
        assert second.answered, call


@pytest.mark.parametrize("step", [0, 1, 2])
async def test_a_search_stopped_before_scoring_repeats_no_proposal(new_folder: Callable[[], str], step: int) -> None:
    """Without a cache, from the checkpoint alone."""
    whole, bought = await undisturbed()
    folder, first, second = Folder(new_folder()), StoppingModel(), StoppingModel()

    def is_proposed(checkpoint: Checkpoint) -> bool:
        return len(checkpoint.trajectory.steps) == step and checkpoint.trajectory.proposal is not None

    stopped = await search(folder, first, SimulatedModel(), first.stopped, is_proposed)
    assert stopped is not None
    assert is_proposed(stopped)
    resumed = await search(folder, second, SimulatedModel(), second.stopped)
    assert first.answered + second.answered == bought.answered
    assert found(resumed) == found(whole)
    assert resumed is not None
    assert resumed.spending == whole.spending
