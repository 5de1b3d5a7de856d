"""Runs searches in this process, without Ray: what a supervisor with actors does for a cluster."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence

from actors.checkpoints import CheckpointStore
from actors.failure_policy import Remedy, RetryLimits, ends_run, fault_of, lost, remedy_for
from actors.search import Phase, Search, SearchKey, Update
from actors.trajectory_worker import TrajectoryWorker
from gpo.errors import GPOError

log = logging.getLogger(__name__)

_RETRY_LIMITS = RetryLimits(crashes=0)


async def run_in_process(searches: Sequence[Search], store: CheckpointStore) -> AsyncGenerator[Update]:
    """Yield updates of all searches as they come; the last one of each is ``DONE``, with an error if it failed.

    Closing the generator cancels all searches and all calls that they are waiting for. Their last checkpoints remain.

    Raises:
        GPOError: every search would meet the same error, as for ``actors.supervisor.Supervisor.run``.
    """
    worker, updates = TrajectoryWorker(searches, store), asyncio.Queue[Update | GPOError]()
    keys = {search.key for search in searches}
    following = [asyncio.create_task(_follow(key, worker, updates)) for key in sorted(keys)]
    try:
        while keys:
            if isinstance(update := await updates.get(), GPOError):
                raise update
            if update.phase is Phase.DONE:
                keys.discard(update.key)
            yield update
    finally:
        for task in following:
            task.cancel()
        await worker.stop()
        await asyncio.gather(*following, return_exceptions=True)


async def _follow(key: SearchKey, worker: TrajectoryWorker, updates: asyncio.Queue[Update | GPOError]) -> None:
    """Run one search to its end, and again after a fault that may pass."""
    times = 0
    while True:
        try:
            async for update in worker.run(key):
                times = 0 if update.checkpoint else times
                updates.put_nowait(update)
            return
        except Exception as error:
            failure: Exception = error
        if isinstance(failure, GPOError) and ends_run(failure):
            updates.put_nowait(failure)
            return
        if (fault := fault_of(failure)) is not None:
            times += 1
            remedy, wait_s = remedy_for(fault, times, _RETRY_LIMITS, is_alone=True)
            if remedy is Remedy.ASK_AGAIN:
                log.warning("trajectory %s: %s; trying again in %g s: %s", key, fault, wait_s, failure)
                await asyncio.sleep(wait_s)
                continue
            failure = lost(str(key), fault, times)
        elif not isinstance(failure, GPOError):  # a defect of this program
            log.error("trajectory %s failed", key, exc_info=failure)
        updates.put_nowait(Update(key, Phase.DONE, error=f"{type(failure).__name__}: {failure}"))
        return
