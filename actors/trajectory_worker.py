"""Runs searches in this process, each from its last checkpoint to its end. Knows no Ray."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from actors.answers import AnswerLog, RecordingEvaluator
from actors.checkpoints import CheckpointStore
from actors.search import Phase, Search, SearchKey, Update
from gpo.checkpoint import Checkpoint, encode
from gpo.data.task import Split
from gpo.models.events import observer
from gpo.prompt import Prompt
from gpo.runtime.concurrency import gather, is_cancellation
from gpo.runtime.context import current_caller, log_about
from gpo.score import finite
from gpo.trajectory import Trajectory

log = logging.getLogger(__name__)

_STOP_S = 2.0


class TrajectoryWorker:
    """Runs searches, each from its last checkpoint.

    Args:
        searches: those that it can be asked to run; they share models and connections.
        store: saves each search whenever it has paid for something new.
    """

    def __init__(self, searches: Sequence[Search], store: CheckpointStore) -> None:
        self._searches = {search.key: search for search in searches}
        self._store = store
        self._runs: dict[SearchKey, asyncio.Task[None]] = {}
        self._is_stopped = False

    async def run(self, key: SearchKey) -> AsyncGenerator[Update]:
        """Run one search to its end and yield an update after every change; a finished search only yields ``DONE``.

        Raises:
            ModelError, EvaluationError, StorageError: the search failed; its last checkpoint remains.
        """
        # The caller may have lost an earlier answer although this actor is alive. Two runs of the same search would
        # pay for everything twice, and overwrite each other's checkpoints.
        if (earlier := self._runs.pop(key, None)) is not None:
            earlier.cancel()
            await asyncio.wait([earlier])
        if self._is_stopped:  # stopped in the meantime: no caller would receive the updates
            raise asyncio.CancelledError
        updates: asyncio.Queue[Update | None] = asyncio.Queue()
        self._runs[key] = work = asyncio.create_task(_SearchRun(self._searches[key], self._store, updates).execute())
        work.add_done_callback(lambda _: updates.put_nowait(None))
        try:
            while (update := await updates.get()) is not None:
                yield update
            await work
        finally:
            work.cancel()

    async def stop(self) -> bool:
        """Cancel every search and wait until its calls are cancelled, too. The last checkpoints remain.

        Returns:
            Whether all searches have ended.
        """
        self._is_stopped = True
        running = [work for work in self._runs.values() if not work.done()]
        for work in running:
            work.cancel()
        if running:
            await asyncio.wait(running, timeout=_STOP_S)
        return all(work.done() for work in running)


class _SearchRun:
    """One run of a search, from its last checkpoint to its end."""

    def __init__(self, search: Search, store: CheckpointStore, updates: asyncio.Queue[Update | None]) -> None:
        self._search, self._store, self._updates = search, store, updates
        self._gpo, self._answers = search.gpo, None
        if search.record is not None:
            self._answers = AnswerLog(
                store.folder,
                search.key,
                writes_all=search.record.writes_all,
                max_bytes=search.record.max_bytes,
                fence=store.fence,
            )
            self._gpo = replace(search.gpo, evaluator=RecordingEvaluator(search.gpo.evaluator, self._answers))
        self._phase = Phase.INITIAL
        self._evaluated = self._to_evaluate = 0
        self._saving = asyncio.Lock()

    async def execute(self) -> None:
        try:
            await self._execute()
        except asyncio.CancelledError as error:
            if is_cancellation(error):
                raise
            # Without an error, the search would never be over for those who wait for it.
            raise RuntimeError("a function raised CancelledError, although the search was not cancelled") from error

    async def _execute(self) -> None:
        key = self._search.key
        current_caller.set(self._search.caller)
        log_about(task=key.task, trajectory=str(key))
        checkpoint = await asyncio.to_thread(self._store.load, key)
        if checkpoint is not None and self._answers is not None:
            await self._answers.restore()
        message = "resumed" if checkpoint else "initial prompt scored"
        checkpoint = checkpoint or await self._score_initial_prompt()
        self._log(message, checkpoint.trajectory)
        self._enter_next_phase(checkpoint)
        # Closed at once when the search is cancelled, or its calls would continue and cost money.
        async with aclosing(self._gpo.run(checkpoint.trajectory, self._report_progress)) as trajectories:
            async for trajectory in trajectories:
                has_new_step = len(trajectory.steps) > len(checkpoint.trajectory.steps)
                checkpoint = replace(checkpoint, trajectory=trajectory)
                if trajectory.proposal is None:
                    # A prompt may be confirmed several times after the last step; then its answers increase.
                    confirmed = 0 if has_new_step else sum(len(one.score.scored) for one in trajectory.history)
                    name = f"step-{len(trajectory.steps):05}-{confirmed:08}"
                    await self._record(name, trajectory.current.prompt, trajectory.best.prompt)
                await self._save(checkpoint)
                taken = "step taken" if has_new_step else "best prompt confirmed"
                self._log("candidates proposed" if trajectory.proposal else taken, trajectory)
                self._enter_next_phase(checkpoint)
        if self._search.is_tested:
            checkpoint = await self._test(checkpoint)
        if self._answers is not None:
            await self._answers.end()
        self._phase, self._evaluated, self._to_evaluate = Phase.DONE, 0, 0
        log.info("done")
        self._report(checkpoint)

    async def _score_initial_prompt(self) -> Checkpoint:
        self._report_progress(0, 1)
        checkpoint = Checkpoint(await self._gpo.start(self._search.initial), test={})
        await self._record("step-00000", self._search.initial)
        await self._save(checkpoint)
        return checkpoint

    async def _record(self, name: str, *chosen: Prompt) -> None:
        """Write answers before the checkpoint that follows from them: a step that is repeated writes them again."""
        if self._answers is not None:
            await self._answers.write(name, chosen)

    async def _test(self, checkpoint: Checkpoint) -> Checkpoint:
        """Evaluate the initial and the best prompt on ``test``, concurrently."""
        prompts = dict.fromkeys((checkpoint.trajectory.initial.prompt, checkpoint.trajectory.best.prompt))
        untested = [prompt for prompt in prompts if prompt.id not in checkpoint.test]

        async def test(prompt: Prompt) -> None:
            nonlocal checkpoint
            (evaluation,) = await self._gpo.evaluator.evaluate([prompt], Split.TEST)
            await self._record(f"test-{prompt.id}", prompt)
            checkpoint = checkpoint.with_test(prompt, evaluation)
            await self._save(checkpoint)
            self._report_progress(self._evaluated + 1, self._to_evaluate)

        self._report_progress(0, len(untested))
        await gather(test(prompt) for prompt in untested)
        return checkpoint

    async def _save(self, checkpoint: Checkpoint) -> None:
        """Return once the checkpoint is safe: the next step must not begin before."""
        async with self._saving:  # checkpoints are written in order
            # Encoded here, because a trajectory caches properties lazily: encoding it in another thread would race.
            content = encode(checkpoint, str(self._search.key))
            # Written in a thread, because an object store may be slow and other searches continue meanwhile.
            writing = asyncio.create_task(asyncio.to_thread(self._store.write, self._search.key, content))
            try:
                await asyncio.shield(writing)
                observer().checkpoint_saved(self._search.caller)
            except asyncio.CancelledError:
                # The thread cannot be cancelled. Wait for it, or it could overwrite a later checkpoint.
                await asyncio.wait([writing])
                writing.exception()  # retrieved, so that asyncio does not log it; no caller is left to handle it
                raise

    def _enter_next_phase(self, checkpoint: Checkpoint) -> None:
        trajectory: Trajectory = checkpoint.trajectory
        is_done = self._gpo.is_done(trajectory)
        if (proposal := trajectory.proposal) is not None and not is_done:
            # ``_evaluated`` stays: the first candidates were scored while others were still being proposed.
            self._phase, self._to_evaluate = Phase.EVALUATING, len(proposal.prompts)
        else:
            last = Phase.TESTING if trajectory.is_confirmed else Phase.CONFIRMING
            self._phase = last if is_done else Phase.PROPOSING
            self._evaluated = self._to_evaluate = 0
        self._report(checkpoint)

    def _log(self, message: str, trajectory: Trajectory) -> None:
        """Log the saved progress, with prompt IDs. Later log lines belong to the next step."""
        current, proposal = trajectory.current, trajectory.proposal
        extra = {
            "prompt": current.prompt.id,
            "val": finite(current.score.mean),
            "best_val": finite(trajectory.best.score.mean),
            "proposed": [prompt.id for prompt in proposal.prompts] if proposal else [],
        }
        log.info(message, extra=extra)
        log_about(step=None if self._gpo.is_done(trajectory) else len(trajectory.steps))

    def _report_progress(self, evaluated: int, to_evaluate: int) -> None:
        self._evaluated, self._to_evaluate = evaluated, to_evaluate
        self._report()

    def _report(self, checkpoint: Checkpoint | None = None) -> None:
        self._updates.put_nowait(Update(self._search.key, self._phase, self._evaluated, self._to_evaluate, checkpoint))
