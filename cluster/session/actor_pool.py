"""Actors that stand ready: a trial that begins needs not wait for the process of its trajectories.

To start one takes processor time that a small machine misses elsewhere; so those of a trial that
is over are used again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError

from cluster.config import RunConfig
from cluster.session.deployments import unfailing
from cluster.session.session import Services, placement, preloaded

_FAREWELL_S = 3.0


class ActorPool:
    """Gives out actors, and sees to it that there is one more than are taken.

    Args:
        config: how actors are placed; alike for all trials.

    Attributes:
        placement: how trajectories are spread.
    """

    def __init__(self, config: RunConfig, services: Services) -> None:
        self.placement, self._spare = placement(config, services.metrics), services.take_actors()
        self._preload = preloaded(config)
        self._wanted = True

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if not self._spare:
            self._spare.append(self.placement.start_actor(self._preload))
        taken = self._spare.pop(0)
        if self._wanted and not self._spare:
            self._spare.append(self.placement.start_actor(self._preload))
        return taken

    @property
    def takes_back(self) -> bool:
        """Whether an actor that is at nothing any more may be wanted again."""
        return self._wanted

    def give_back(self, actor: Any) -> None:
        """Take an actor back that is at nothing any more."""
        self._spare.insert(0, actor)  # it stands; another may still wait for room

    async def last(self) -> None:
        """No more are needed than are asked for from now on: what nobody has makes room for others."""
        self._wanted = False
        await self.end()

    async def end(self) -> None:
        """End those that nobody has."""
        ending, self._spare = self._spare, []
        try:
            # Told, so that nobody takes them for dead; no longer than is polite: one may still wait for room.
            if ending:
                await asyncio.wait([asyncio.create_task(_told(actor)) for actor in ending], timeout=_FAREWELL_S)
        finally:
            for actor in ending:
                with unfailing("ending a spare actor"):
                    ray.kill(actor)


async def _told(actor: Any) -> None:
    with suppress(RayError):
        await actor.stop.remote(True)
