"""The actor in which trajectories live.

Several share one actor, since a trajectory mostly waits for language models and a process costs about 100 MB. The
worker is a plain class; the actor is a shell over it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

import ray

from actors.checkpoint_store import CheckpointStore
from actors.search import Phase, Search, SearchKey, Update
from gpo.checkpoint import Checkpoint
from gpo.concurrency import gather
from gpo.evaluation import Evaluation, Evaluator
from gpo.prompt import Prompt
from gpo.tasks import Split
from gpo.trajectory import Trajectory


class TrajectoryWorker:
    """Runs searches, each from its last checkpoint.

    Args:
        searches: what may be asked for; their models and connections are shared.
        store: where each search is saved whenever it has paid for something new.
    """

    def __init__(self, searches: Sequence[Search], store: CheckpointStore) -> None:
        self._searches = {search.key: search for search in searches}
        self._store = store
        self._runs: dict[SearchKey, asyncio.Task[None]] = {}

    async def run(self, key: SearchKey) -> AsyncIterator[Update]:
        """Carry one search to its end, with news after every change; a finished one yields a single ``DONE``.

        Raises:
            ModelError, EvaluationError, CheckpointError: the search stopped; its last checkpoint stands.
        """
        # Whoever asks again has lost the first answer, not necessarily this actor: two runs would pay for everything
        # twice, and overwrite each other's checkpoints.
        if (earlier := self._runs.pop(key, None)) is not None:
            earlier.cancel()
            await asyncio.wait([earlier])
        news: asyncio.Queue[Update | None] = asyncio.Queue()
        self._runs[key] = work = asyncio.create_task(_Run(self._searches[key], self._store, news).to_end())
        # The end of the work, good or bad, ends the news.
        work.add_done_callback(lambda _: news.put_nowait(None))
        try:
            while (update := await news.get()) is not None:
                yield update
            await work
        finally:
            work.cancel()


class _Run:
    """One search under way."""

    def __init__(self, search: Search, store: CheckpointStore, news: asyncio.Queue[Update | None]) -> None:
        self._search, self._store, self._news = search, store, news
        self._phase = Phase.INITIAL
        self._gpo = replace(search.gpo, evaluator=_Announced(search.gpo.evaluator, self._announce))

    async def to_end(self) -> None:
        checkpoint = self._store.load(self._search.key) or await self._begin()
        self._enter_next(checkpoint)
        async for trajectory in self._gpo.run(checkpoint.trajectory):
            checkpoint = replace(checkpoint, trajectory=trajectory)
            self._save(checkpoint)
            self._enter_next(checkpoint)
        for prompt in dict.fromkeys((checkpoint.trajectory.initial.prompt, checkpoint.trajectory.best.prompt)):
            if prompt.id not in checkpoint.test:
                (evaluation,) = await self._gpo.evaluator.evaluate([prompt], Split.TEST)
                checkpoint = checkpoint.with_test(prompt, evaluation)
                self._save(checkpoint)
        self._phase = Phase.DONE
        self._tell(checkpoint=checkpoint)

    async def _begin(self) -> Checkpoint:
        checkpoint = Checkpoint(await self._gpo.start(self._search.initial), test={})
        self._save(checkpoint)
        return checkpoint

    def _save(self, checkpoint: Checkpoint) -> None:
        # On the event loop: a checkpoint is some kilobytes, and the next step must not begin before it is safe.
        self._store.save(self._search.key, checkpoint)

    def _enter_next(self, checkpoint: Checkpoint) -> None:
        trajectory: Trajectory = checkpoint.trajectory
        if trajectory.proposal is not None:
            self._phase = Phase.EVALUATING
        elif len(trajectory.steps) < self._gpo.num_steps:
            self._phase = Phase.PROPOSING
        else:
            self._phase = Phase.TESTING
        self._tell(checkpoint=checkpoint)

    def _announce(self, evaluated: int, to_evaluate: int) -> None:
        self._tell(evaluated=evaluated, to_evaluate=to_evaluate)

    def _tell(self, evaluated: int = 0, to_evaluate: int = 0, checkpoint: Checkpoint | None = None) -> None:
        self._news.put_nowait(Update(self._search.key, self._phase, evaluated, to_evaluate, checkpoint))


class _Announced:
    """An evaluator that tells how far it is."""

    def __init__(self, evaluator: Evaluator, tell: Callable[[int, int], None]) -> None:
        self._evaluator, self._tell = evaluator, tell

    async def evaluate(self, prompts: Sequence[Prompt], split: Split) -> Sequence[Evaluation]:
        done = 0
        self._tell(done, len(prompts))

        async def one(prompt: Prompt) -> Sequence[Evaluation]:
            nonlocal done
            row = await self._evaluator.evaluate([prompt], split)
            done += 1
            self._tell(done, len(prompts))
            return row

        rows = await gather(one(prompt) for prompt in prompts)
        return [evaluation for row in rows for evaluation in row]


TrajectoryActor = ray.remote(TrajectoryWorker)
