"""Spreads a run's searches over actors, and watches over them until each has come to an end."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ray.exceptions import RayError, RayTaskError

from actors.checkpoints import CheckpointStore
from actors.failure_policy import (
    AskAgain,
    Budgets,
    EndRun,
    Fault,
    GiveUp,
    History,
    StartElsewhere,
    fault_in_actor,
    on_error,
    on_fault,
    raised_by,
)
from actors.search import Phase, Search, SearchKey, Update
from actors.slots import ActorSlot, Placement, SpareActors, shards
from gpo.checkpoint import Checkpoint
from gpo.context import log_about
from gpo.errors import GPOError

log = logging.getLogger(__name__)

_FAREWELL_S = 3.0


@dataclass(slots=True)
class _Carried:
    """A search on its way to its end.

    Attributes:
        reached: how far its last checkpoint is; see ``_progress``.
    """

    search: Search
    place: ActorSlot
    history: History
    reached: tuple[int, ...] = ()

    @property
    def key(self) -> SearchKey:
        return self.search.key

    def heard(self, checkpoint: Checkpoint | None) -> None:
        """See whether it got on; one that was started anew tells first what it had reached before."""
        if checkpoint is not None and (reached := _progress(checkpoint)) > self.reached:
            self.reached, self.history = reached, self.history.got_on()


@dataclass(frozen=True, slots=True)
class _Ended:
    """Why everything ends."""

    error: BaseException


@dataclass(slots=True)
class _News:
    """What the followers have to say."""

    queue: asyncio.Queue[Update | _Ended] = field(default_factory=asyncio.Queue)

    def of(self, update: Update) -> None:
        self.queue.put_nowait(update)

    def failed(self, key: SearchKey, error: BaseException) -> None:
        self.of(Update(key, Phase.DONE, error=f"{type(error).__name__}: {error}"))

    def end(self, error: BaseException) -> None:
        self.queue.put_nowait(_Ended(error))


class Supervisor:
    """Carries every search to its end, or to a failure of its own.

    Args:
        searches: one per trajectory.
        store: where they are saved, and where an actor that was started anew finds them.
        placement: how to spread them.
        actors: actors that stand already, to be used first.
        pool: takes back those that are at nothing any more; left out, all end with the search.
        budgets: how often what may fail; left out, the placement says it for actors.

    Attributes:
        faults: what happened so far, counted once for each trajectory that it happened to.
    """

    def __init__(
        self,
        searches: Sequence[Search],
        store: CheckpointStore,
        placement: Placement,
        actors: Iterable[Any] = (),
        budgets: Budgets | None = None,
        pool: SpareActors | None = None,
    ) -> None:
        self._searches, self._store, self._placement, self._actors = searches, store, placement, iter(actors)
        self._pool = pool
        self._budgets = budgets or Budgets(crashes=placement.restarts)
        self._places: list[ActorSlot] = []
        self.faults = Counter[Fault]()

    async def run(self) -> AsyncGenerator[Update, None]:
        """News of all trajectories as they come; the last of each is ``DONE``, with an error where it failed.

        Raises:
            ModelRefused: the key or the model's name is wrong, so that every call would be refused.
            BudgetExhausted: nothing may be called any more.
            StorageError: nothing can be saved any more.
        """
        news = _News()
        follow = [asyncio.create_task(self._follow(carried, news)) for carried in self._start()]
        unfinished = len(follow)
        try:
            while unfinished:
                update = await news.queue.get()
                if isinstance(update, _Ended):
                    raise update.error
                unfinished -= update.phase is Phase.DONE
                yield update
        finally:
            for task in follow:
                task.cancel()
            await asyncio.gather(*follow, return_exceptions=True)
            await self._end()

    async def _end(self) -> None:
        """End all actors, or give them back."""

        async def is_at_nothing(place: ActorSlot, ends: bool) -> bool:
            with suppress(RayError):
                return bool(await place.actor.stop.remote(ends))
            return False

        pool = self._pool if self._pool is not None and self._pool.takes_back else None
        returned = [place for place in self._places if pool is not None and not place.is_apart]
        # A process that is killed tells nobody that it does not wait any more: the evaluator would go on for it.
        stopping = {place: asyncio.create_task(is_at_nothing(place, place not in returned)) for place in self._places}
        try:
            if stopping:
                await asyncio.wait(stopping.values(), timeout=_FAREWELL_S)
        finally:
            for place, stopped in stopping.items():
                is_done = stopped.done() and not stopped.cancelled()
                if pool is not None and place in returned and is_done and stopped.result():
                    pool.give_back(place.actor)
                else:
                    place.end()

    def _start(self) -> list[_Carried]:
        carried = []
        for shard in shards(self._searches, self._placement.trajectories_per_actor):
            place = ActorSlot(shard, self._placement.start_actor, next(self._actors, None))
            self._places.append(place)
            carried += [_Carried(search, place, History(is_alone=len(shard) == 1)) for search in shard]
        return carried

    async def _follow(self, carried: _Carried, news: _News) -> None:
        log_about(task=carried.key.task, trajectory=str(carried.key))
        try:
            while (trouble := await self._trouble(carried, news)) is not None:
                if not await self._is_worth_going_on(carried, trouble, news):
                    return
        except Exception as fault:  # one of ours: the search ends with it, the others go on
            log.exception("trajectory %s failed", carried.key)
            news.failed(carried.key, fault)

    async def _trouble(self, carried: _Carried, news: _News) -> tuple[Fault, str, int] | GiveUp | EndRun | None:
        """Follow the search in its actor as far as it gets; what ended it early, in which of the actor's lives."""
        place = carried.place
        life = place.lives
        try:
            streaming = place.actor.run.options(num_returns="streaming")
            async for reference in streaming.remote(carried.key, [place.searches], self._store):
                update: Update = await reference
                carried.heard(update.checkpoint)
                news.of(update)
        except RayTaskError as failure:
            error = raised_by(failure)
            comes_to = on_error(error)
            if isinstance(comes_to, GiveUp) and not isinstance(error, GPOError):  # a fault of ours
                log.error("trajectory %s failed: %s", carried.key, failure)
            return (comes_to, str(error), life) if isinstance(comes_to, Fault) else comes_to
        except RayError as error:
            return fault_in_actor(error), str(error), life
        return None

    async def _is_worth_going_on(
        self, carried: _Carried, trouble: tuple[Fault, str, int] | GiveUp | EndRun, news: _News
    ) -> bool:
        """Do what is to be done about trouble; whether the search is then to be asked for again."""
        if isinstance(trouble, tuple):
            fault, said, life = trouble
            self.faults[fault] += 1
            await self._look(carried)
            decision = on_fault(fault, carried.history, self._budgets, f"trajectory {carried.key}")
            log.warning("trajectory %s: %s; %s: %s", carried.key, fault, decision, said)
            carried.history = carried.history.after(fault)
        else:
            decision, life = trouble, carried.place.lives
        match decision:
            case EndRun(error):
                news.end(error)
                return False
            case GiveUp(error):
                news.failed(carried.key, error)
                return False
            case StartElsewhere(wait_s, alone):
                await asyncio.sleep(wait_s)
                if alone:
                    self._move_out(carried)
                else:
                    carried.place.renew(life)
            case AskAgain(wait_s):
                await asyncio.sleep(wait_s)
        return True

    async def _look(self, carried: _Carried) -> None:
        """A process that dies takes its last news along, but not what it saved."""
        try:
            carried.heard(await asyncio.to_thread(self._store.load, carried.key))
        except GPOError as error:  # its actor will meet the same, and say so
            log.warning("the checkpoint of trajectory %s: %s", carried.key, error)

    def _move_out(self, carried: _Carried) -> None:
        carried.place.leave(carried.key)
        carried.place = ActorSlot([carried.search], self._placement.start_isolated_actor, is_apart=True)
        carried.history = carried.history.alone()
        self._places.append(carried.place)


def _progress(checkpoint: Checkpoint) -> tuple[int, ...]:
    """Rises with whatever a search pays for and saves."""
    trajectory = checkpoint.trajectory
    return len(trajectory.steps), int(trajectory.proposal is not None), len(checkpoint.test)
