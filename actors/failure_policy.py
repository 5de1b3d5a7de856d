"""What to do about a failure: an error, and what happened before, go in; a decision comes out.

Nothing here knows Ray. ``actors.failure_policy`` says which fault an error of Ray's is.

A trajectory that got on since its last fault begins anew with every budget: it has only so many steps to get on by, so
that this ends, however often a cluster loses its nodes. What is counted is faults in a row, each kind for itself.

When an actor dies, none of the trajectories in it knows whose fault it was. Those that did not get on are tried in an
actor each once the budget is spent; who dies there as often as before did it alone, and is lost alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from ray.exceptions import ActorDiedError, RayActorError, RayError, RayTaskError

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
    """What kept a trajectory from going on, without any fault of its search."""

    CRASH = "its actor died"
    NODE_LOSS = "the node of its actor was lost"
    """Preempted nodes among them. Whatever a trajectory does, this is not its doing."""
    NO_CONTACT = "its actor could not be reached"
    """It may be alive."""
    EVALUATOR = "the evaluator could not be reached"
    LIMITER = "the limiter could not be reached"


_IN_ITS_ACTOR = (Fault.CRASH, Fault.NODE_LOSS, Fault.NO_CONTACT)


@dataclass(frozen=True, slots=True)
class Budgets:
    """How often each fault may happen to a trajectory in a row, without its getting on in between."""

    crashes: int = 3
    node_losses: int = 30
    no_contacts: int = 8
    evaluator: int = 4
    """Each after the minutes that ``serve.client`` has tried."""
    limiter: int = 4
    """Each after the minute that a gate has tried."""

    def of(self, fault: Fault) -> int:
        """The budget of one kind."""
        return {
            Fault.CRASH: self.crashes,
            Fault.NODE_LOSS: self.node_losses,
            Fault.NO_CONTACT: self.no_contacts,
            Fault.EVALUATOR: self.evaluator,
            Fault.LIMITER: self.limiter,
        }[fault]


@dataclass(frozen=True, slots=True)
class History:
    """What has happened to a trajectory.

    Attributes:
        is_alone: whether no other trajectory shares its actor.
        in_a_row: how often each fault happened since the trajectory last got on.
    """

    is_alone: bool = False
    in_a_row: Mapping[Fault, int] = field(default_factory=dict[Fault, int])

    def after(self, fault: Fault) -> History:
        """With one more fault."""
        return replace(self, in_a_row={**self.in_a_row, fault: self.in_a_row.get(fault, 0) + 1})

    def got_on(self) -> History:
        """Something new was saved."""
        return replace(self, in_a_row={}) if self.in_a_row else self

    def alone(self) -> History:
        """In an actor of its own, with budgets of its own."""
        return History(is_alone=True)


@dataclass(frozen=True, slots=True)
class AskAgain:
    """Ask the same actor, after so many seconds."""

    wait_s: float


@dataclass(frozen=True, slots=True)
class StartElsewhere:
    """Start another actor, wherever there is room, and ask that after so many seconds.

    Attributes:
        alone: the trajectory gets it for itself; else it is for all that shared the old one.
    """

    wait_s: float
    alone: bool = False


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End this trajectory; the others go on."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class EndRun:
    """End all of them: each would meet the same."""

    error: BaseException


Decision = AskAgain | StartElsewhere | GiveUp | EndRun


def on_error(error: BaseException) -> Fault | GiveUp | EndRun:
    """What an exception that the search raised comes to."""
    match error:
        case OutOfReach():
            return Fault.LIMITER if error.part is Part.LIMITER else Fault.EVALUATOR
        case BudgetExhausted():
            return EndRun(error)
        case ModelRefused() if error.reason is not RefusalReason.REQUEST:
            # What one search is refused for good, all are: no use in paying for the others' steps until they see it.
            return EndRun(error)
        case StorageError() if not isinstance(error, CheckpointError):
            # Where one trajectory cannot be saved, none can; a checkpoint that is damaged is one trajectory's.
            return EndRun(error)
        case _:
            return GiveUp(error)


def on_fault(fault: Fault, before: History, budgets: Budgets, what: str = "the trajectory") -> Decision:
    """What to do about a fault.

    Args:
        before: without this fault.
        what: names the trajectory in the error.
    """
    times = before.in_a_row.get(fault, 0) + 1
    # An actor that died is missed already, and takes seconds to stand again: the first time nothing more is waited for.
    wait_s = min(_LONGEST_WAIT_S, float(2 ** (times - 1)))
    if times <= budgets.of(fault):
        if fault in (Fault.CRASH, Fault.NODE_LOSS):
            return StartElsewhere(wait_s if times > 1 else 0.0)
        return AskAgain(wait_s)
    if fault in _IN_ITS_ACTOR and not before.is_alone:
        return StartElsewhere(0.0, alone=True)
    return GiveUp(_lost(fault, times, what))


def _lost(fault: Fault, times: int, what: str) -> GPOError:
    remedy = "resume the run to go on from the last checkpoint"
    if fault is Fault.CRASH:
        remedy += ", or raise cluster.actor_restarts"
    return TrajectoryLost(f"{what}: {fault} {times} times without its getting on in between; {remedy}")


_OF_A_NODE = ("node has died", "node was terminated", "node is dead")
"""Ray says so in words alone."""


def fault_in_actor(error: RayError) -> Fault:
    """What an error means that the call of an actor ended with, but for one that its method raised."""
    if isinstance(error, RayActorError) and error.preempted:
        return Fault.NODE_LOSS
    if isinstance(error, ActorDiedError):
        said = str(error).lower()
        return Fault.NODE_LOSS if any(words in said for words in _OF_A_NODE) else Fault.CRASH
    # Out of reach, or what it yielded was lost with the node that held it: the actor knows, if it is there.
    return Fault.NO_CONTACT


def raised_by(failure: RayTaskError) -> BaseException:
    """The exception that was raised in the actor, or in the replica that the actor called."""
    cause: BaseException = failure
    while isinstance(cause, RayTaskError) and isinstance(cause.cause, BaseException) and cause.cause is not cause:
        cause = cause.cause
    return cause
