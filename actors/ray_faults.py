"""Which fault an error of Ray's is."""

from __future__ import annotations

from ray.exceptions import ActorDiedError, RayActorError, RayError, RayTaskError

from actors.failure_policy import Fault

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
