"""Runs searches in actors until each of them is done, restarting what fails.

All decisions are made in ``actors.supervisor_state``, which is pure. The supervisor executes them on Ray.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from ray.exceptions import ActorDiedError, RayActorError, RayError, RayTaskError

from actors.checkpoints import CheckpointStore
from actors.failure_policy import Fault, RetryLimits, fault_of
from actors.search import Search, SearchKey, Update
from actors.slots import ActorSlot, Placement, SpareActors, shards
from actors.supervisor_state import (
    Action,
    End,
    EndActor,
    Event,
    Failed,
    Faulted,
    ReplaceActor,
    Report,
    Reported,
    RunTrajectory,
    StartActor,
    Wait,
    WaitOver,
    Warn,
    begin,
    step,
)
from gpo.checkpoint import Checkpoint
from gpo.errors import GPOError
from gpo.runtime.context import log_about

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_STOP_S = 3.0
"""How long actors have to stop before they are killed, in seconds."""


class Supervisor:
    """Runs every search to its end, or until it fails for good.

    Args:
        searches: one per trajectory.
        store: saves checkpoints; a restarted actor continues from them.
        placement: how searches are distributed over actors.
        actors: actors that are running already, to be used first.
        retry_limits: how often each fault may happen; by default, the placement limits restarts of actors.
        pool: receives the actors that are idle at the end; without it, they are ended.
    """

    def __init__(
        self,
        searches: Sequence[Search],
        store: CheckpointStore,
        placement: Placement,
        actors: Iterable[Any] = (),
        retry_limits: RetryLimits | None = None,
        pool: SpareActors | None = None,
    ) -> None:
        self._searches = {search.key: search for search in searches}
        self._store, self._placement, self._pool, self._ready = store, placement, pool, iter(actors)
        groups = shards(searches, placement.trajectories_per_actor)
        keys = [[search.key for search in group] for group in groups]
        self._state, self._first_actions = begin(keys, retry_limits or RetryLimits(crashes=placement.restarts))
        self._slots: dict[int, ActorSlot] = {}
        self._tasks = set[asyncio.Task[None]]()
        self._output = asyncio.Queue[Update | End]()

    @property
    def faults(self) -> Counter[Fault]:
        """How often each fault has happened so far, counted for each trajectory that it interrupted."""
        return Counter(self._state.faults)

    async def run(self) -> AsyncGenerator[Update, None]:
        """Yield updates of all trajectories as they come; the last one of each is ``DONE``, with an error if it failed.

        Raises:
            ModelRefused: an endpoint refuses the key or the model, so every call would be refused.
            BudgetExhausted: the run may not call any model any more.
            StorageError: nothing can be saved any more.
        """
        try:
            self._execute(self._first_actions)
            while not isinstance(item := await self._output.get(), End):
                yield item
            if item.error is not None:
                raise item.error
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._end_actors()

    def _handle(self, event: Event) -> None:
        self._state, actions = step(self._state, event)
        self._execute(actions)

    def _execute(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case StartActor():
                    self._slots[action.slot] = self._new_slot(action)
                case ReplaceActor(slot):
                    self._slots[slot].replace()
                case EndActor(slot):
                    self._slots[slot].end()
                case RunTrajectory(key, slot):
                    self._spawn(self._follow, key, self._slots[slot])
                case Wait(key, seconds):
                    self._spawn(self._wait, key, seconds)
                case Report(update):
                    self._output.put_nowait(update)
                case Warn(message):
                    log.warning("%s", message)
                case End():
                    self._output.put_nowait(action)

    def _new_slot(self, action: StartActor) -> ActorSlot:
        searches = [self._searches[key] for key in action.keys]
        if action.is_isolated:
            return ActorSlot(searches, self._placement.start_isolated_actor, is_isolated=True)
        return ActorSlot(searches, self._placement.start_actor, next(self._ready, None))

    def _spawn(self, work: Callable[[SearchKey, _T], Awaitable[None]], key: SearchKey, argument: _T) -> None:
        async def guarded() -> None:
            log_about(task=key.task, trajectory=str(key))
            try:
                await work(key, argument)
            except Exception as error:  # a defect of this program ends one trajectory; the others continue
                log.exception("trajectory %s failed", key)
                self._handle(Failed(key, error))

        task = asyncio.create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _wait(self, key: SearchKey, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._handle(WaitOver(key))

    async def _follow(self, key: SearchKey, slot: ActorSlot) -> None:
        """Turn what one trajectory reports, and what interrupts it, into events."""
        try:
            async for update in slot.run(key, self._store):
                self._handle(Reported(update))
        except RayTaskError as failure:
            error = raised_by(failure)
            if (fault := fault_of(error)) is not None:
                self._handle(Faulted(key, fault, str(error), await self._saved(key)))
            else:
                if not isinstance(error, GPOError):  # a defect of this program: log where it was raised
                    log.error("trajectory %s failed: %s", key, failure)
                self._handle(Failed(key, error))
        except RayError as error:
            self._handle(Faulted(key, fault_in_actor(error), str(error), await self._saved(key)))

    async def _saved(self, key: SearchKey) -> Checkpoint | None:
        try:
            return await asyncio.to_thread(self._store.load, key)
        except GPOError as error:  # the actor will meet the same error and raise it
            log.warning("the checkpoint of trajectory %s: %s", key, error)
            return None

    async def _end_actors(self) -> None:
        """Give idle actors back to the pool, and end the others."""

        async def is_idle(slot: ActorSlot, ends: bool) -> bool:
            with suppress(RayError):
                return bool(await slot.actor.stop.remote(ends))
            return False

        pool = self._pool if self._pool is not None and self._pool.takes_back else None
        returned = [slot for slot in self._slots.values() if pool is not None and not slot.is_isolated]
        # Stopped before they are killed: a killed process cannot cancel what the evaluator computes for it.
        stopping = {slot: asyncio.create_task(is_idle(slot, slot not in returned)) for slot in self._slots.values()}
        try:
            if stopping:
                await asyncio.wait(stopping.values(), timeout=_STOP_S)
        finally:
            for slot, stopped in stopping.items():
                has_stopped = stopped.done() and not stopped.cancelled()
                if pool is not None and slot in returned and has_stopped and stopped.result():
                    pool.give_back(slot.actor)
                else:
                    slot.end()


_NODE_LOST = ("node has died", "node was terminated", "node is dead")
"""Ray says in the error's text alone that a node was lost."""


def fault_in_actor(error: RayError) -> Fault:
    """The fault that an error of an actor call means, unless the actor's method raised it."""
    if isinstance(error, RayActorError) and error.preempted:
        return Fault.NODE_LOSS
    if isinstance(error, ActorDiedError):
        message = str(error).lower()
        return Fault.NODE_LOSS if any(words in message for words in _NODE_LOST) else Fault.CRASH
    # The actor is unreachable, or a value that it yielded was lost with a node: the actor may still be alive.
    return Fault.NO_CONTACT


def raised_by(failure: RayTaskError) -> BaseException:
    """The exception that was raised in the actor, or in the replica that the actor called."""
    cause: BaseException = failure
    while isinstance(cause, RayTaskError) and isinstance(cause.cause, BaseException) and cause.cause is not cause:
        cause = cause.cause
    return cause
