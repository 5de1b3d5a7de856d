"""What carries trajectories on, in an actor.

Several share one actor, since a trajectory mostly waits for language models and a process costs more than 100 MB. The
worker is a plain class; ``actors.trajectory_actor`` is the actor, a shell over it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace

from actors.checkpoints import CheckpointStore
from actors.search import Phase, Search, SearchKey, Update
from gpo.checkpoint import Checkpoint, encode
from gpo.concurrency import gather
from gpo.context import current_caller, log_about
from gpo.data.task import Split
from gpo.events import observer
from gpo.prompt import Prompt
from gpo.score import finite
from gpo.trajectory import Trajectory

log = logging.getLogger(__name__)

_STOP_S = 2.0


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
        self._is_stopped = False

    async def run(self, key: SearchKey) -> AsyncIterator[Update]:
        """Carry one search to its end, with news after every change; a finished one yields a single ``DONE``.

        Raises:
            ModelError, EvaluationError, StorageError: the search stopped; its last checkpoint stands.
        """
        # Whoever asks again has lost the first answer, not necessarily this actor: two runs would pay for everything
        # twice, and overwrite each other's checkpoints.
        if (earlier := self._runs.pop(key, None)) is not None:
            earlier.cancel()
            await asyncio.wait([earlier])
        if self._is_stopped:  # meanwhile; nobody follows what would begin here
            raise asyncio.CancelledError
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

    async def stop(self) -> bool:
        """End every search, and wait until whoever works for it was told so; their last checkpoints stand.

        Returns:
            Whether all of them have ended.
        """
        self._is_stopped = True
        ending = [work for work in self._runs.values() if not work.done()]
        for work in ending:
            work.cancel()
        if ending:
            await asyncio.wait(ending, timeout=_STOP_S)
        return all(work.done() for work in ending)


class _Run:
    """One search under way."""

    def __init__(self, search: Search, store: CheckpointStore, news: asyncio.Queue[Update | None]) -> None:
        self._search, self._store, self._news = search, store, news
        self._gpo = search.gpo
        self._phase = Phase.INITIAL
        self._evaluated = self._to_evaluate = 0
        self._saving = asyncio.Lock()

    async def to_end(self) -> None:
        key = self._search.key
        current_caller.set(self._search.caller)
        log_about(task=key.task, trajectory=str(key))
        checkpoint = await asyncio.to_thread(self._store.load, key)
        what = "resumed" if checkpoint else "initial prompt scored"
        checkpoint = checkpoint or await self._begin()
        self._log(what, checkpoint.trajectory)
        self._enter_next(checkpoint)
        # Closed at once where the search is given up: what it is at would still be paid for.
        async with aclosing(self._gpo.run(checkpoint.trajectory, self._announce)) as trajectories:
            async for trajectory in trajectories:
                checkpoint = replace(checkpoint, trajectory=trajectory)
                await self._save(checkpoint)
                self._log("proposals bought" if trajectory.proposal else "step taken", trajectory)
                self._enter_next(checkpoint)
        if self._search.is_tested:
            checkpoint = await self._tested(checkpoint)
        self._phase, self._evaluated, self._to_evaluate = Phase.DONE, 0, 0
        log.info("done")
        self._tell(checkpoint)

    async def _begin(self) -> Checkpoint:
        self._announce(0, 1)
        checkpoint = Checkpoint(await self._gpo.start(self._search.initial), test={})
        await self._save(checkpoint)
        return checkpoint

    async def _tested(self, checkpoint: Checkpoint) -> Checkpoint:
        """The checkpoint with initial and best prompt evaluated on ``test``, side by side."""
        ends = dict.fromkeys((checkpoint.trajectory.initial.prompt, checkpoint.trajectory.best.prompt))
        untested = [prompt for prompt in ends if prompt.id not in checkpoint.test]

        async def test(prompt: Prompt) -> None:
            nonlocal checkpoint
            (evaluation,) = await self._gpo.evaluator.evaluate([prompt], Split.TEST)
            checkpoint = checkpoint.with_test(prompt, evaluation)
            await self._save(checkpoint)
            self._announce(self._evaluated + 1, self._to_evaluate)

        self._announce(0, len(untested))
        await gather(test(prompt) for prompt in untested)
        return checkpoint

    async def _save(self, checkpoint: Checkpoint) -> None:
        """Return once it is safe: the next step must not begin before."""
        async with self._saving:  # a later one comes after an earlier one
            # Encoded here: what a trajectory reckons once and keeps would be added to it under another thread's hands.
            content = encode(checkpoint, str(self._search.key))
            # Written in a thread: an object store takes its time, in which other searches go on.
            saving = asyncio.create_task(asyncio.to_thread(self._store.write, self._search.key, content))
            try:
                await asyncio.shield(saving)
                observer().checkpoint_saved(current_caller.get())
            except asyncio.CancelledError:
                # The thread goes on all the same. Whoever goes on with the search must not be overtaken by it.
                await asyncio.wait([saving])
                saving.exception()  # nobody is left to be told of it
                raise

    def _enter_next(self, checkpoint: Checkpoint) -> None:
        trajectory: Trajectory = checkpoint.trajectory
        if (proposal := trajectory.proposal) is not None:
            # Some were scored while others were still proposed.
            self._phase, self._to_evaluate = Phase.EVALUATING, len(proposal.prompts)
        else:
            self._phase = Phase.PROPOSING if len(trajectory.steps) < self._gpo.num_steps else Phase.TESTING
            self._evaluated = self._to_evaluate = 0
        self._tell(checkpoint)

    def _log(self, what: str, trajectory: Trajectory) -> None:
        """Log what has just been saved, prompts by id; the lines that follow are about the step that follows."""
        current, proposal = trajectory.current, trajectory.proposal
        extra = {
            "prompt": current.prompt.id,
            "val": finite(current.score.mean),
            "best_val": finite(trajectory.best.score.mean),
            "proposed": [prompt.id for prompt in proposal.prompts] if proposal else [],
        }
        log.info(what, extra=extra)
        log_about(step=len(trajectory.steps) if len(trajectory.steps) < self._gpo.num_steps else None)

    def _announce(self, evaluated: int, to_evaluate: int) -> None:
        self._evaluated, self._to_evaluate = evaluated, to_evaluate
        self._tell()

    def _tell(self, checkpoint: Checkpoint | None = None) -> None:
        self._news.put_nowait(Update(self._search.key, self._phase, self._evaluated, self._to_evaluate, checkpoint))
