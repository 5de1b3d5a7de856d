"""Where searches are carried on: how they are spread over actors, and an actor that is started anew when it dies."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Protocol

import ray

from actors.search import Search, SearchKey
from actors.trajectory_actor import ProcessHook, start_trajectory_actor

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Placement:
    """How searches are spread.

    Attributes:
        trajectories_per_actor: searches in an actor, at most.
        cpus: what Ray reserves for an actor.
        restarts: how often an actor that died is started again without any of its trajectories getting on.
        on_start: what counts in it; see ``actors.trajectory_actor``.
    """

    trajectories_per_actor: int
    cpus: float
    restarts: int
    on_start: ProcessHook | None = None

    def start_actor(self, preload: Sequence[str] = ()) -> Any:
        """An actor for some of the searches; see ``actors.trajectory_actor``."""
        return start_trajectory_actor(
            cpus=self.cpus, trajectories=self.trajectories_per_actor, preload=preload, on_start=self.on_start
        )

    def start_isolated_actor(self) -> Any:
        """An actor for one search that could not go on among others.

        Nothing is reserved for it: there may be no room for as many actors as there are trajectories, and it mostly
        waits.
        """
        return start_trajectory_actor(cpus=0.0, trajectories=1, on_start=self.on_start)


def shards(searches: Sequence[Search], size: int) -> list[list[Search]]:
    """The searches in as few groups of at most ``size`` as there can be, those of a task next to each other.

    All groups are filled alike: an actor more, half empty, would cost a process and spare nobody any work.
    """
    ordered = sorted(searches, key=lambda search: search.key)
    count = ceil(len(ordered) / size)
    return [ordered[index * len(ordered) // count : (index + 1) * len(ordered) // count] for index in range(count)]


class SpareActors(Protocol):
    """Takes back actors that are at nothing any more."""

    @property
    def takes_back(self) -> bool:
        """Whether one may be wanted again; else it had better make room."""
        ...

    def give_back(self, actor: Any) -> None:
        """Take one."""
        ...


class ActorSlot:
    """An actor, and the searches that it carries on.

    Ray does not start it again by itself: how often, and for whom, is the failure policy's matter.

    Args:
        searches: all that it carries on.
        start: starts an actor.
        actor: one that stands already.
        is_apart: whether it is for a search that could not go on among others.

    Attributes:
        actor: as it is now.
        searches: a reference to them.
        lives: how many actors it has had before.
    """

    def __init__(
        self, searches: Sequence[Search], start: Callable[[], Any], actor: Any = None, *, is_apart: bool = False
    ) -> None:
        self._start, self._members = start, {search.key for search in searches}
        self.searches: ray.ObjectRef[Any] = ray.put(list(searches))
        self.actor: Any = start() if actor is None else actor
        self.is_apart = is_apart
        self.lives = 0

    def renew(self, life: int) -> None:
        """Start another actor, unless somebody who shares it has done so since that life."""
        if life == self.lives:
            self.end()
            self.actor = self._start()
            self.lives += 1

    def leave(self, key: SearchKey) -> None:
        """The search goes on elsewhere; the last one to go ends the actor."""
        self._members.discard(key)
        if not self._members:
            self.end()

    def end(self) -> None:
        """End the actor at once; one that is dead already stays so."""
        try:
            ray.kill(self.actor)
        except ray.exceptions.RayError as error:  # nobody at the other end who could tell it
            log.warning("an actor of trajectories could not be ended: %s", error)
