"""Spreads a run's searches over actors, and watches over them until each has come to an end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from actors.checkpoint_store import CheckpointStore
from actors.search import Phase, Search, SearchKey, Update
from actors.trajectory_worker import TrajectoryActor
from gpo.errors import BudgetExhausted, GPOError, ModelRefused, RefusalReason, TrajectoryLost

log = logging.getLogger(__name__)

_RESTART_WAIT_S = 1.0
"""Before a trajectory is asked of its restarted actor again; doubled every time."""


@dataclass(frozen=True, slots=True)
class Placement:
    """How searches are spread.

    Attributes:
        trajectories_per_actor: searches in an actor, at most.
        cpus: what Ray reserves for an actor.
        restarts: how often an actor that died is started again.
    """

    trajectories_per_actor: int
    cpus: float
    restarts: int


def shards(searches: Sequence[Search], size: int) -> list[list[Search]]:
    """The searches in as few groups of at most ``size`` as there can be, those of a task next to each other.

    All groups are filled alike: an actor more, half empty, would cost a process and spare nobody any work.
    """
    ordered = sorted(searches, key=lambda search: search.key)
    count = ceil(len(ordered) / size)
    return [ordered[index * len(ordered) // count : (index + 1) * len(ordered) // count] for index in range(count)]


class Supervisor:
    """Carries every search to its end, or to a failure of its own.

    Args:
        searches: one per trajectory.
        store: where they are saved, and where a restarted actor finds them.
        placement: how to spread them.
    """

    def __init__(self, searches: Sequence[Search], store: CheckpointStore, placement: Placement) -> None:
        self._searches, self._store, self._placement = searches, store, placement

    async def run(self) -> AsyncGenerator[Update, None]:
        """News of all trajectories as they come; the last of each is ``DONE``, with an error where it failed.

        Raises:
            ModelRefused: the key or the model's name is wrong, so that every call would be refused.
            BudgetExhausted: nothing may be called any more.
        """
        actors = self._start()
        news: asyncio.Queue[Update | BaseException] = asyncio.Queue()
        follow = [asyncio.create_task(self._follow(key, actor, news)) for key, actor in actors.items()]
        unfinished = len(follow)
        try:
            while unfinished:
                update = await news.get()
                if isinstance(update, BaseException):
                    raise update
                unfinished -= update.phase is Phase.DONE
                yield update
        finally:
            for task in follow:
                task.cancel()
            await asyncio.gather(*follow, return_exceptions=True)
            for actor in set(actors.values()):
                ray.kill(actor)

    def _start(self) -> Mapping[SearchKey, Any]:
        place: Any = TrajectoryActor
        actors: dict[SearchKey, Any] = {}
        for shard in shards(self._searches, self._placement.trajectories_per_actor):
            actor = place.options(
                num_cpus=self._placement.cpus,
                max_restarts=self._placement.restarts,
                name=f"trajectories-{shard[0].key.task}-{shard[0].key.seed}",
                max_concurrency=len(shard) + 1,
            ).remote(shard, self._store)
            actors.update({search.key: actor for search in shard})
        return actors

    async def _follow(self, key: SearchKey, actor: Any, news: asyncio.Queue[Update | BaseException]) -> None:
        try:
            await self._with_restarts(key, actor, news)
        except ModelRefused as refusal:
            # What one search is refused for good, all are: no use in paying for the others' steps until they see it.
            final = refusal.reason is not RefusalReason.REQUEST
            news.put_nowait(refusal if final else self._failed(key, refusal))
        except BudgetExhausted as exhausted:
            news.put_nowait(exhausted)
        except GPOError as error:
            news.put_nowait(self._failed(key, error))
        except Exception as error:  # a fault of ours: the search ends with it, the others go on
            log.exception("trajectory %s failed", key)
            news.put_nowait(self._failed(key, error))

    async def _with_restarts(self, key: SearchKey, actor: Any, news: asyncio.Queue[Update | BaseException]) -> None:
        for restart in range(self._placement.restarts + 1):
            try:
                async for reference in actor.run.options(num_returns="streaming").remote(key):
                    news.put_nowait(await reference)
            except RayActorError as death:  # dead, or out of reach
                if restart == self._placement.restarts:
                    break
                wait_s = _RESTART_WAIT_S * 2**restart
                log.warning("the actor of trajectory %s died; asking again in %.0f s: %s", key, wait_s, death)
                await asyncio.sleep(wait_s)
            except RayTaskError as failure:
                raise _cause(failure) from None
            else:
                return
        raise TrajectoryLost(
            f"the actor of trajectory {key} died {self._placement.restarts + 1} times; "
            "resume the run to go on from the last checkpoint, or raise cluster.actor_restarts"
        )

    @staticmethod
    def _failed(key: SearchKey, error: BaseException) -> Update:
        return Update(key, Phase.DONE, error=f"{type(error).__name__}: {error}")


def _cause(failure: RayTaskError) -> BaseException:
    """The exception that was raised in the actor, or in the replica that the actor called."""
    cause: BaseException = failure
    while isinstance(cause, RayTaskError) and isinstance(cause.cause, BaseException) and cause.cause is not cause:
        cause = cause.cause
    return cause
