"""Trajectory actors that several trials use one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError

from cluster.config import RunConfig
from cluster.display.logs import log_failures
from cluster.session.session import Services, placement, preloaded

_STOPPED_WITHIN_S = 3.0


class ActorPool:
    """An iterator over idle actors, which keeps one spare: a trial that begins need not wait for a process to start.

    Starting an actor takes processor time that calls need on a small machine, so the actors of finished trials are
    reused.

    Args:
        config: of any trial; all place their actors alike.
    """

    def __init__(self, config: RunConfig, services: Services) -> None:
        self._placement, self._spare = placement(config, services.metrics), services.take_actors()
        self._preload = preloaded(config)
        self._wanted = True

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if not self._spare:
            self._spare.append(self._placement.start_actor(self._preload))
        taken = self._spare.pop(0)
        if self._wanted and not self._spare:
            self._spare.append(self._placement.start_actor(self._preload))
        return taken

    @property
    def takes_back(self) -> bool:
        """Whether an idle actor may be needed again."""
        return self._wanted

    def give_back(self, actor: Any) -> None:
        """Return an idle actor to the pool."""
        self._spare.insert(0, actor)  # first: it runs, while the spare one may still wait for a CPU

    async def last(self) -> None:
        """Keep no spare from now on, and end the idle actors, so that others can use their CPUs."""
        self._wanted = False
        await self.end()

    async def end(self) -> None:
        """End the idle actors."""
        ending, self._spare = self._spare, []
        try:
            # Stopped first, so that they do not count as dead. The time is limited: an actor may still wait for a CPU.
            if ending:
                await asyncio.wait([asyncio.create_task(_stop(actor)) for actor in ending], timeout=_STOPPED_WITHIN_S)
        finally:
            for actor in ending:
                with log_failures("ending a spare actor"):
                    ray.kill(actor)


async def _stop(actor: Any) -> None:
    with suppress(RayError):
        await actor.stop.remote(True)
