"""Kills parts of a running command according to a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from benchmarks.measuring.processes import Process


class Part(StrEnum):
    """A part of a run that is not one of Ray's daemons."""

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
    "SharedLimiter": Part.LIMITER,
    "EmbeddedModelServer": Part.MODEL,
    "cluster.cli": Part.DRIVER,
}
"""Class of the Ray actor, or module that Python runs → part."""


@dataclass(frozen=True, slots=True)
class Kill:
    """A process that was killed, with the time on the system's monotonic clock."""

    part: Part
    pid: int
    at_s: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What to kill, and when.

    Attributes:
        kills: (seconds after the previous kill, part) for each kill. ``None`` means any running part except the driver;
            all parts have the same chance, however many processes they have. A kill waits until its part is running.
        first: number of answered calls after which the time to the first kill starts.
        least: number of calls that must be answered between two kills, so that parts can restart on a busy machine.
    """

    kills: Iterable[tuple[float, Part | None]]
    first: int = 1
    least: int = 20


class Kills:
    """An observer that kills one process after the other.

    Args:
        draw: makes the random choices of the plan.
        answered: returns the number of calls answered so far.

    Attributes:
        done: the kills so far.
    """

    def __init__(self, plan: Plan, draw: Random, answered: Callable[[], int]) -> None:
        self._plan: Iterator[tuple[float, Part | None]] = iter(plan.kills)
        self._draw, self._answered, self._least = draw, answered, plan.least
        self._next: tuple[float, Part | None] | None = None
        self._wanted_calls = plan.first
        self.done: list[Kill] = []

    def observe(self, now_s: float, processes: Sequence[Process]) -> None:
        """Kill a process if a kill is due."""
        if self._next is not None and now_s < self._next[0]:
            return
        if (answered := self._answered()) < self._wanted_calls:
            return
        if self._next is None:
            self._advance(now_s)
        elif (victim := self._choose(processes, self._next[1])) and victim.kill():
            self.done.append(Kill(PROGRAMS[victim.program], victim.pid, now_s))
            self._wanted_calls = answered + self._least
            self._advance(now_s)

    def _advance(self, now_s: float) -> None:
        wait_s, wanted = next(self._plan, (float("inf"), None))
        self._next = (now_s + wait_s, wanted)

    def _choose(self, processes: Sequence[Process], wanted: Part | None) -> Process | None:
        running: dict[Part, list[Process]] = {}
        for process in processes:
            part = PROGRAMS.get(process.program)
            if part is not None and (part is wanted or (wanted is None and part is not Part.DRIVER)):
                running.setdefault(part, []).append(process)
        return self._draw.choice(running[self._draw.choice(sorted(running))]) if running else None


def every_few_seconds(draw: Random, shortest_s: float, longest_s: float) -> Plan:
    """An endless plan that kills any part, each after a random time between the two."""

    def kills() -> Iterator[tuple[float, Part | None]]:
        while True:
            yield draw.uniform(shortest_s, longest_s), None

    return Plan(kills())
