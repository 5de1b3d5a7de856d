"""Decides what to do about a failure of a trajectory.

A trajectory that has made progress since its last fault starts over with full budgets. It has a limited number of
steps, so this ends, however often a cluster loses its nodes. What counts is therefore the number of faults in a row,
separately for each kind of fault.

When an actor dies, nobody knows which of its trajectories caused it. Once the budget is spent, each trajectory that has
made no progress restarts in a separate actor. The one that kills its separate actor as often again is lost; the others
finish.

Nothing here knows Ray: ``actors.supervisor`` maps Ray's errors to a ``Fault``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gpo.errors import (
    BudgetExhausted,
    CheckpointError,
    GPOError,
    ModelRefused,
    OutOfReach,
    Part,
    RefusalReason,
    StorageError,
    TrajectoryLost,
)

_LONGEST_WAIT_S = 30.0


class Fault(StrEnum):
    """An outside event that interrupted a trajectory."""

    CRASH = "its actor died"
    NODE_LOSS = "the node of its actor was lost"
    """Includes preempted nodes. A trajectory cannot cause this."""
    NO_CONTACT = "its actor could not be reached"
    """The actor may still be alive."""
    EVALUATOR = "the evaluator could not be reached"
    LIMITER = "the limiter could not be reached"

    @property
    def concerns_actor(self) -> bool:
        """Whether a separate actor could help."""
        return self in (Fault.CRASH, Fault.NODE_LOSS, Fault.NO_CONTACT)


@dataclass(frozen=True, slots=True)
class Budgets:
    """How often each fault may happen to a trajectory in a row, without progress in between."""

    crashes: int = 3
    node_losses: int = 30
    no_contacts: int = 8
    evaluator: int = 4
    """``serve.client`` has already retried for minutes before each of them."""
    limiter: int = 4
    """A gate has already retried for a minute before each of them."""

    def of(self, fault: Fault) -> int:
        """The budget of one kind of fault."""
        return {
            Fault.CRASH: self.crashes,
            Fault.NODE_LOSS: self.node_losses,
            Fault.NO_CONTACT: self.no_contacts,
            Fault.EVALUATOR: self.evaluator,
            Fault.LIMITER: self.limiter,
        }[fault]


@dataclass(frozen=True, slots=True)
class AskAgain:
    """Ask the same actor again after ``wait_s`` seconds."""

    wait_s: float

    def __str__(self) -> str:
        return f"asking again in {self.wait_s:g} s"


@dataclass(frozen=True, slots=True)
class RestartActor:
    """Replace the actor after ``wait_s`` seconds, for all trajectories that share it."""

    wait_s: float

    def __str__(self) -> str:
        return f"restarting its actor in {self.wait_s:g} s" if self.wait_s else "restarting its actor"


@dataclass(frozen=True, slots=True)
class Isolate:
    """Restart this trajectory alone in a separate actor."""

    def __str__(self) -> str:
        return "moving it to a separate actor"


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End this trajectory; the others continue."""

    error: BaseException

    def __str__(self) -> str:
        return "giving it up"


@dataclass(frozen=True, slots=True)
class EndRun:
    """End all trajectories, because each would meet the same error."""

    error: BaseException

    def __str__(self) -> str:
        return "ending the run"


Decision = AskAgain | RestartActor | Isolate | GiveUp | EndRun


def on_error(error: BaseException) -> Fault | GiveUp | EndRun:
    """Classify an exception that a search raised."""
    match error:
        case OutOfReach():
            return Fault.LIMITER if error.part is Part.LIMITER else Fault.EVALUATOR
        case BudgetExhausted():
            return EndRun(error)
        case ModelRefused() if error.reason is not RefusalReason.REQUEST:
            # The endpoint would refuse every other search, too: stop before they pay for more steps.
            return EndRun(error)
        case StorageError() if not isinstance(error, CheckpointError):
            # If one trajectory cannot be saved, none can. A damaged checkpoint concerns one trajectory.
            return EndRun(error)
        case _:
            return GiveUp(error)


def on_fault(
    fault: Fault, times: int, budgets: Budgets, *, is_alone: bool, name: str = "the trajectory"
) -> AskAgain | RestartActor | Isolate | GiveUp:
    """Decide what to do about a fault.

    Args:
        times: how often this fault has happened in a row, this time included; ≥ 1.
        is_alone: whether no other trajectory shares the actor.
        name: names the trajectory in the error.
    """
    wait_s = min(_LONGEST_WAIT_S, float(2 ** (times - 1)))
    if times <= budgets.of(fault):
        if fault in (Fault.CRASH, Fault.NODE_LOSS):
            # Starting an actor takes seconds anyway, so the first restart does not wait.
            return RestartActor(wait_s if times > 1 else 0.0)
        return AskAgain(wait_s)
    if fault.concerns_actor and not is_alone:
        return Isolate()
    return GiveUp(_lost(fault, times, name))


def _lost(fault: Fault, times: int, name: str) -> GPOError:
    remedy = "resume the run to continue from the last checkpoint"
    if fault is Fault.CRASH:
        remedy += ", or raise cluster.actor_restarts"
    return TrajectoryLost(f"{name}: {fault} {times} times without progress in between; {remedy}")
