"""The actor in which trajectories live."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from importlib import import_module
from typing import Any

import ray

from actors.checkpoints import CheckpointStore
from actors.search import SearchKey, Update
from actors.trajectory_worker import TrajectoryWorker

ProcessHook = Callable[[], Callable[[], object]]
"""Begins to count what happens in a process; what it returns says that the process ends as it was meant to."""


class TrajectoryActor:
    """A process for a ``TrajectoryWorker``, which may stand before it is known what the worker will do.

    Args:
        preload: what its searches will need: ``module``, or ``module:function`` to be called; loading takes seconds, in
            which others start.
        on_start: called at the start of the process; what it returns is called before the end.
    """

    def __init__(self, preload: Sequence[str] = (), on_start: ProcessHook | None = None) -> None:
        self._recorded = on_start() if on_start else None
        for name in preload:
            module, _, function = name.partition(":")
            loaded = import_module(module)
            if function:
                getattr(loaded, function)()
        self._worker: asyncio.Task[TrajectoryWorker] | None = None

    async def run(
        self, key: SearchKey, searches: Sequence[ray.ObjectRef[Any]], store: CheckpointStore
    ) -> AsyncIterator[Update]:
        """Carry one search to its end; see ``TrajectoryWorker.run``.

        Args:
            searches: holds one reference, to all the searches of this actor. They are fetched once, so that they share
                their models. Every call brings the reference along: an actor that was started anew knows nothing, nor
                does one that was stopped.
        """
        if self._worker is None:
            self._worker = asyncio.create_task(_worker(searches[0], store))
        async for update in (await self._worker).run(key):
            yield update

    async def stop(self, ends: bool) -> bool:
        """End all searches, and whatever they have asked others to do; their last checkpoints stand.

        Args:
            ends: whether the process ends as well. Where it does not, it can be given other searches.

        Returns:
            Whether nothing goes on any more.
        """
        stopping, self._worker = self._worker, None
        is_at_nothing = stopping is None or await (await stopping).stop()
        if self._recorded is not None and (ends or not is_at_nothing):  # else it can be used again
            await asyncio.to_thread(self._recorded)
        return is_at_nothing


async def _worker(searches: ray.ObjectRef[Any], store: CheckpointStore) -> TrajectoryWorker:
    return TrajectoryWorker(await searches, store)


def start_trajectory_actor(
    *, cpus: float, trajectories: int, preload: Sequence[str] = (), on_start: ProcessHook | None = None
) -> Any:
    """An actor for so many trajectories. When it dies, whoever needs it starts another.

    Args:
        cpus: what Ray reserves for it.
    """
    actor_class: Any = _RemoteTrajectoryActor
    options = {"num_cpus": cpus, "max_restarts": 0, "max_concurrency": trajectories + 2}
    return actor_class.options(**options).remote(preload, on_start)


_RemoteTrajectoryActor = ray.remote(TrajectoryActor)
