"""Spreads a run's searches over actors, and watches over them until each has come to an end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from actors.checkpoint_store import CheckpointStore
from actors.host import Recording, host
from actors.search import Phase, Search, SearchKey, Update
from gpo.errors import BudgetExhausted, GPOError, ModelRefused, RefusalReason, TrajectoryLost

log = logging.getLogger(__name__)

_FAREWELL_S = 3.0
_RESTART_WAIT_S = 1.0
"""Before a trajectory is asked of its restarted actor again; doubled every time."""


@dataclass(frozen=True, slots=True)
class Placement:
    """How searches are spread.

    Attributes:
        trajectories_per_actor: searches in an actor, at most.
        cpus: what Ray reserves for an actor.
        restarts: how often an actor that died is started again.
        recording: what counts in it; see ``actors.host``.
    """

    trajectories_per_actor: int
    cpus: float
    restarts: int
    recording: Recording | None = None

    def host(self, preload: Sequence[str] = ()) -> Any:
        """An actor for some of the searches; see ``actors.host``."""
        return host(
            cpus=self.cpus, restarts=self.restarts, trajectories=self.trajectories_per_actor, preload=preload,
            recording=self.recording,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Place:
    """An actor, and the searches that it carries on."""

    actor: Any
    searches: ray.ObjectRef[Any]


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
        hosts: actors that stand already, to be used first; they end with the search.
    """

    def __init__(
        self, searches: Sequence[Search], store: CheckpointStore, placement: Placement, hosts: Iterable[Any] = ()
    ) -> None:
        self._searches, self._store, self._placement, self._hosts = searches, store, placement, iter(hosts)

    async def run(self) -> AsyncGenerator[Update, None]:
        """News of all trajectories as they come; the last of each is ``DONE``, with an error where it failed.

        Raises:
            ModelRefused: the key or the model's name is wrong, so that every call would be refused.
            BudgetExhausted: nothing may be called any more.
        """
        actors = self._start()
        news: asyncio.Queue[Update | BaseException] = asyncio.Queue()
        follow = [asyncio.create_task(self._follow(key, place, news)) for key, place in actors.items()]
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
            places = {id(place): place for place in actors.values()}.values()
            # A process that is killed tells nobody that it does not wait any more: the evaluator would go on for it.
            await _settled([place.actor.stop.remote() for place in places])
            for place in places:
                ray.kill(place.actor)

    def _start(self) -> Mapping[SearchKey, _Place]:
        places: dict[SearchKey, _Place] = {}
        for shard in shards(self._searches, self._placement.trajectories_per_actor):
            actor = next(self._hosts, None) or self._placement.host()
            place = _Place(actor, ray.put(shard))
            places.update({search.key: place for search in shard})
        return places

    async def _follow(self, key: SearchKey, place: _Place, news: asyncio.Queue[Update | BaseException]) -> None:
        try:
            await self._with_restarts(key, place, news)
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

    async def _with_restarts(self, key: SearchKey, place: _Place, news: asyncio.Queue[Update | BaseException]) -> None:
        for restart in range(self._placement.restarts + 1):
            try:
                streaming = place.actor.run.options(num_returns="streaming")
                async for reference in streaming.remote(key, [place.searches], self._store):
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


async def _settled(references: Sequence[Any]) -> None:
    async def settle(reference: Any) -> None:
        with suppress(ray.exceptions.RayError):
            await reference

    if references:
        await asyncio.wait([asyncio.create_task(settle(one)) for one in references], timeout=_FAREWELL_S)


def _cause(failure: RayTaskError) -> BaseException:
    """The exception that was raised in the actor, or in the replica that the actor called."""
    cause: BaseException = failure
    while isinstance(cause, RayTaskError) and isinstance(cause.cause, BaseException) and cause.cause is not cause:
        cause = cause.cause
    return cause
