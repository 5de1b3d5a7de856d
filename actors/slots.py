"""How searches are distributed over actors, and the slot that holds a replaceable actor."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Protocol

import ray

from actors.checkpoints import CheckpointStore
from actors.search import Search, SearchKey, Update
from actors.trajectory_actor import ProcessHook, start_trajectory_actor

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Placement:
    """How searches are distributed over actors.

    Attributes:
        trajectories_per_actor: the most searches in one actor.
        cpus: the CPUs that Ray reserves for an actor.
        restarts: how often an actor is restarted in a row while one of its trajectories makes no progress.
        on_start: called in each actor's process; see ``actors.trajectory_actor``.
    """

    trajectories_per_actor: int
    cpus: float
    restarts: int
    on_start: ProcessHook | None = None

    def start_actor(self, preload: Sequence[str] = ()) -> Any:
        """Start an actor for some of the searches; see ``actors.trajectory_actor``."""
        return start_trajectory_actor(
            cpus=self.cpus, trajectories=self.trajectories_per_actor, preload=preload, on_start=self.on_start
        )

    def start_isolated_actor(self) -> Any:
        """Start an actor for one search that could not continue in a shared one.

        It reserves no CPU: the cluster may have too few for one actor per trajectory, and the actor mostly waits.
        """
        return start_trajectory_actor(cpus=0.0, trajectories=1, on_start=self.on_start)


def shards(searches: Sequence[Search], size: int) -> list[list[Search]]:
    """Split searches into the fewest groups of at most ``size``, of nearly equal sizes, searches of a task together.

    Equal sizes, because one more half-empty actor would cost a process and save no work.
    """
    ordered = sorted(searches, key=lambda search: search.key)
    count = ceil(len(ordered) / size)
    return [ordered[index * len(ordered) // count : (index + 1) * len(ordered) // count] for index in range(count)]


class SpareActors(Protocol):
    """Takes back idle actors for later searches."""

    @property
    def takes_back(self) -> bool:
        """Whether an actor may be needed again; if not, it ends and frees its CPUs."""
        ...

    def give_back(self, actor: Any) -> None:
        """Take back an idle actor."""
        ...


class ActorSlot:
    """A replaceable actor and the searches that it runs.

    Ray does not restart the actor by itself: ``actors.supervisor_state`` decides how often, and for which searches.

    Args:
        searches: all that it may be asked to run.
        start: starts an actor.
        actor: an actor that is running already, to be used first.
        is_isolated: whether the actor is for a search that could not continue in a shared one.

    Attributes:
        actor: the current one.
    """

    def __init__(
        self, searches: Sequence[Search], start: Callable[[], Any], actor: Any = None, *, is_isolated: bool = False
    ) -> None:
        self._start = start
        self._searches: ray.ObjectRef[Any] = ray.put(list(searches))
        self.actor: Any = start() if actor is None else actor
        self.is_isolated = is_isolated

    async def run(self, key: SearchKey, store: CheckpointStore) -> AsyncIterator[Update]:
        """Run one search to its end in the current actor.

        Raises:
            ray.exceptions.RayError: the actor or its node failed, or the search raised an error (``RayTaskError``).
        """
        async for reference in self.actor.run.options(num_returns="streaming").remote(key, [self._searches], store):
            yield await reference

    def replace(self) -> None:
        """End the actor and start another."""
        self.end()
        self.actor = self._start()

    def end(self) -> None:
        """Kill the actor; a dead one stays dead."""
        try:
            ray.kill(self.actor)
        except ray.exceptions.RayError as error:  # Ray itself cannot be reached
            log.warning("a trajectory actor could not be ended: %s", error)
