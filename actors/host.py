"""The actor in which trajectories live."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from importlib import import_module
from typing import Any

import ray

from actors.checkpoint_store import CheckpointStore
from actors.search import SearchKey, Update
from actors.trajectory_worker import TrajectoryWorker


class Host:
    """A process for a ``TrajectoryWorker``, which may stand before it is known what the worker will do.

    Args:
        preload: names of modules that its searches will need; loading them takes seconds, in which others start.
    """

    def __init__(self, preload: Sequence[str] = ()) -> None:
        for name in preload:
            import_module(name)
        self._worker: asyncio.Task[TrajectoryWorker] | None = None

    async def run(
        self, key: SearchKey, searches: Sequence[ray.ObjectRef[Any]], store: CheckpointStore
    ) -> AsyncIterator[Update]:
        """Carry one search to its end; see ``TrajectoryWorker.run``.

        Args:
            searches: holds one reference, to all the searches of this actor. They are fetched once, so that they share
                their models. Every call brings the reference along: an actor that was started anew knows nothing.
        """
        if self._worker is None:
            self._worker = asyncio.create_task(_worker(searches[0], store))
        async for update in (await self._worker).run(key):
            yield update

    async def stop(self) -> None:
        """End all searches, and whatever they have asked others to do; their last checkpoints stand."""
        if self._worker is not None:
            await (await self._worker).stop()


async def _worker(searches: ray.ObjectRef[Any], store: CheckpointStore) -> TrajectoryWorker:
    return TrajectoryWorker(await searches, store)


def host(*, cpus: float, trajectories: int, preload: Sequence[str] = ()) -> Any:
    """An actor for so many trajectories. When it dies, whoever needs it starts another.

    Args:
        cpus: what Ray reserves for it.
    """
    actor_class: Any = HostActor
    return actor_class.options(num_cpus=cpus, max_restarts=0, max_concurrency=trajectories + 2).remote(preload)


HostActor = ray.remote(Host)
