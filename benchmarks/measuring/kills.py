"""Which part of a running command is killed, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from benchmarks.measuring.family import Member


class Part(StrEnum):
    """What a run consists of, but for Ray's own daemons."""

    ACTOR = "trajectory actor"
    REPLICA = "Serve replica"
    CONTROLLER = "Serve controller"
    LIMITER = "limiter"
    MODEL = "embedded model"
    DRIVER = "driver"


PROGRAMS = {
    "TrajectoryActor": Part.ACTOR,
    "ServeReplica": Part.REPLICA,
    "ServeController": Part.CONTROLLER,
    "LocalLimiter": Part.LIMITER,
    "EmbeddedModelServer": Part.MODEL,
    "cluster.cli": Part.DRIVER,
}
"""By the class of the Ray actor, or the module that Python runs."""


def part_of(program: str) -> Part | None:
    """What a process that runs this program is of the run; ``None`` for everything else."""
    return PROGRAMS.get(program)


def part(member: Member) -> Part | None:
    """What a process is of the run; ``None`` for everything else."""
    return part_of(member.program)


@dataclass(frozen=True, slots=True)
class Kill:
    """A process that was killed: what it was, and when on the system's monotonic clock."""

    part: Part
    pid: int
    at_s: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Who is to be killed, and when.

    Attributes:
        kills: for each, how many seconds after the one before, and which part; ``None`` is any but the driver, each
            that is there with the same chance, however many processes it has. A part that is not there is waited for.
        first: calls that are answered before the time of the first kill runs.
        least: calls that must be answered between two kills: on a busy machine, nothing would come up again in time.
    """

    kills: Iterable[tuple[float, Part | None]]
    first: int = 1
    least: int = 20


class Kills:
    """Kills one process after the other.

    Args:
        draw: decides what the plan leaves open.
        answered: the number of calls that were answered so far.

    Attributes:
        done: the kills so far.
    """

    def __init__(self, plan: Plan, draw: Random, answered: Callable[[], int]) -> None:
        self._plan: Iterator[tuple[float, Part | None]] = iter(plan.kills)
        self._draw, self._answered, self._least = draw, answered, plan.least
        self._next: tuple[float, Part | None] | None = None
        self._wanted_calls = plan.first
        self.done: list[Kill] = []

    def look(self, now_s: float, members: Sequence[Member]) -> None:
        """Kill whoever is due among the members."""
        if self._next is not None and now_s < self._next[0]:
            return
        if (answered := self._answered()) < self._wanted_calls:
            return
        if self._next is None:
            self._advance(now_s)
        elif (victim := self._chosen(members, self._next[1])) and victim.kill():
            kind = part(victim)
            assert kind is not None  # noqa: S101
            self.done.append(Kill(kind, victim.pid, now_s))
            self._wanted_calls = answered + self._least
            self._advance(now_s)

    def _advance(self, now_s: float) -> None:
        wait_s, wanted = next(self._plan, (float("inf"), None))
        self._next = (now_s + wait_s, wanted)

    def _chosen(self, members: Sequence[Member], wanted: Part | None) -> Member | None:
        there: dict[Part, list[Member]] = {}
        for member in members:
            kind = part(member)
            if kind is not None and (kind is wanted or (wanted is None and kind is not Part.DRIVER)):
                there.setdefault(kind, []).append(member)
        return self._draw.choice(there[self._draw.choice(sorted(there))]) if there else None


def every_few_seconds(draw: Random, shortest_s: float, longest_s: float) -> Plan:
    """Without an end: any part, after a time between the two."""

    def kills() -> Iterator[tuple[float, Part | None]]:
        while True:
            yield draw.uniform(shortest_s, longest_s), None

    return Plan(kills())
