"""The Ray actor around a ``TrajectoryWorker``.

Several trajectories share one actor: a trajectory mostly waits for language models, and a process costs more than
100 MB.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from importlib import import_module
from math import inf
from typing import Any

import ray

from actors.checkpoints import CheckpointStore
from actors.search import SearchKey, Update
from actors.trajectory_worker import TrajectoryWorker

ProcessHook = Callable[[], Callable[[], object]]
"""Called when a process starts. What it returns is called before the process ends as intended."""

_PROGRESS_EVERY_S = 0.25
"""Least time before an update that only says how many prompts of a step are scored."""


class TrajectoryActor:
    """A process for a ``TrajectoryWorker``. It can start before its searches are known.

    Args:
        preload: what its searches will need: ``module``, or ``module:function`` to be called. Loading takes seconds, in
            which other processes start.
        on_start: called when the process starts; see ``ProcessHook``.
    """

    def __init__(self, preload: Sequence[str] = (), on_start: ProcessHook | None = None) -> None:
        self._on_end = on_start() if on_start else None
        for name in preload:
            module, _, function = name.partition(":")
            loaded = import_module(module)
            if function:
                getattr(loaded, function)()
        self._worker: asyncio.Task[TrajectoryWorker] | None = None

    async def run(
        self, key: SearchKey, searches: Sequence[ray.ObjectRef[Any]], store: CheckpointStore
    ) -> AsyncIterator[Update]:
        """Run one search to its end; see ``TrajectoryWorker.run``.

        Args:
            searches: a single reference to all searches of this actor. The actor fetches them once, so that they share
                their models. Every call passes the reference, because a new or stopped actor has no searches.
        """
        if self._worker is None:
            self._worker = asyncio.create_task(_worker(searches[0], store))
        async with aclosing(fewer((await self._worker).run(key))) as updates:
            async for update in updates:
                yield update

    async def stop(self, ends: bool) -> bool:
        """Cancel all searches and all calls that they are waiting for. Their last checkpoints remain.

        Args:
            ends: whether the process ends as well. If not, it can get other searches.

        Returns:
            Whether the actor is idle.
        """
        stopping, self._worker = self._worker, None
        is_idle = stopping is None
        try:
            if stopping is not None:
                is_idle = await (await stopping).stop()
        finally:
            if self._on_end is not None and (ends or not is_idle):  # an actor that is not idle will be killed
                await asyncio.to_thread(self._on_end)
        return is_idle


async def fewer(updates: AsyncGenerator[Update]) -> AsyncGenerator[Update]:
    """Every update with a checkpoint, and the latest of the others a few times a second: each costs a message."""
    loop = asyncio.get_running_loop()
    sent, held = -inf, None
    async with aclosing(updates):
        coming = asyncio.ensure_future(anext(updates, None))
        try:
            while True:
                wait_s = None if held is None else max(0.0, sent + _PROGRESS_EVERY_S - loop.time())
                await asyncio.wait([coming], timeout=wait_s)
                if coming.done():
                    held = update = coming.result()
                    if update is None:
                        return
                    coming = asyncio.ensure_future(anext(updates, None))
                    if update.checkpoint is None and loop.time() - sent < _PROGRESS_EVERY_S:
                        continue
                if held is not None:
                    sent = loop.time()
                    yield held
                    held = None
        finally:
            coming.cancel()
            await asyncio.wait([coming])


async def _worker(searches: ray.ObjectRef[Any], store: CheckpointStore) -> TrajectoryWorker:
    return TrajectoryWorker(await searches, store)


def start_trajectory_actor(
    *, cpus: float, trajectories: int, preload: Sequence[str] = (), on_start: ProcessHook | None = None
) -> Any:
    """Start an actor for at most so many trajectories. Ray does not restart it; the supervisor does.

    Args:
        cpus: the CPUs that Ray reserves for it.
    """
    actor_class: Any = _RemoteTrajectoryActor
    # Two more calls at once than trajectories: a trajectory that is asked for again, and ``stop``.
    options = {"num_cpus": cpus, "max_restarts": 0, "max_concurrency": trajectories + 2}
    return actor_class.options(**options).remote(preload, on_start)


_RemoteTrajectoryActor = ray.remote(TrajectoryActor)
