"""Decides what to do about a failure of a trajectory.

A trajectory that has made progress since its last fault starts over with all retries left. It has a limited number of
steps, so this ends even if the cluster keeps losing nodes. The retry limits therefore limit the number of faults in a
row, separately for each kind of fault.

When an actor dies, it is unknown which of its trajectories caused it. Once the retries are used, each trajectory that
has made no progress restarts in a separate actor. A trajectory that kills its separate actor as often again is lost;
the others finish.

Nothing here knows Ray: ``actors.supervisor`` maps Ray's errors to a ``Fault``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gpo.errors import (
    BudgetExhausted,
    CheckpointError,
    ModelRefused,
    OutOfReach,
    Part,
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


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """How often each fault may happen to a trajectory in a row, without progress in between."""

    crashes: int
    """The option ``cluster.actor_restarts``."""
    node_losses: int = 30
    no_contacts: int = 8
    evaluator: int = 4
    """``serve.client`` has already sent eight requests, with 47 s of waits, before each of them."""
    limiter: int = 4
    """A gate has already retried for a minute before each of them."""

    def of(self, fault: Fault) -> int:
        """The retry limit of one kind of fault."""
        return {
            Fault.CRASH: self.crashes,
            Fault.NODE_LOSS: self.node_losses,
            Fault.NO_CONTACT: self.no_contacts,
            Fault.EVALUATOR: self.evaluator,
            Fault.LIMITER: self.limiter,
        }[fault]


class Remedy(StrEnum):
    """What to do about a fault."""

    ASK_AGAIN = "asking its actor again"
    RESTART = "restarting its actor"
    """For all trajectories that share the actor."""
    ISOLATE = "moving it to a separate actor"
    GIVE_UP = "giving it up"
    """The other trajectories continue."""


def remedy_for(fault: Fault, times: int, retry_limits: RetryLimits, *, is_alone: bool) -> tuple[Remedy, float]:
    """What to do about a fault, and how many seconds to wait before.

    Args:
        times: how often this fault has happened in a row, this time included; ≥ 1.
        is_alone: whether no other trajectory shares the actor.
    """
    wait_s = min(_LONGEST_WAIT_S, float(2 ** (times - 1)))
    if times <= retry_limits.of(fault):
        if fault in (Fault.CRASH, Fault.NODE_LOSS):
            # Starting an actor takes seconds anyway, so the first restart does not wait.
            return Remedy.RESTART, wait_s if times > 1 else 0.0
        return Remedy.ASK_AGAIN, wait_s
    concerns_actor = fault in (Fault.CRASH, Fault.NODE_LOSS, Fault.NO_CONTACT)
    return (Remedy.ISOLATE if concerns_actor and not is_alone else Remedy.GIVE_UP), 0.0


def lost(name: str, fault: Fault, times: int) -> TrajectoryLost:
    """The error of a trajectory that is given up."""
    advice = "resume the run to continue from the last checkpoint"
    if fault is Fault.CRASH:
        advice += ", or raise cluster.actor_restarts"
    return TrajectoryLost(f"trajectory {name}: {fault} {times} times without progress in between; {advice}")


def fault_of(error: BaseException) -> Fault | None:
    """The outside fault that an exception of a search reports, if any."""
    if isinstance(error, OutOfReach):
        return Fault.LIMITER if error.part is Part.LIMITER else Fault.EVALUATOR
    return None


def ends_run(error: BaseException) -> bool:
    """Whether every search would meet the same error; if not, the error ends its trajectory alone."""
    match error:
        case BudgetExhausted():
            return True
        case ModelRefused():
            # The endpoint would refuse every other search, too: stop before they pay for more steps.
            return error.reason.concerns_every_call
        case StorageError():
            # If one trajectory cannot be saved, none can. A damaged checkpoint concerns one trajectory.
            return not isinstance(error, CheckpointError)
        case _:
            return False
