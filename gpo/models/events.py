"""Events of model calls and checkpoints, for the counters of this process.

The algorithm knows no metrics system. Whoever starts a process calls ``install`` before anything else; the part where
an event happens then notifies ``observer()``. By default, nothing is notified.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from gpo.limits.messages import Pool
from gpo.models.protocol import Usage


class Outcome(StrEnum):
    """How one request to an endpoint ended."""

    ANSWERED = "answered"
    TOO_MANY = "too_many"
    """HTTP 429: too many requests."""
    UNAVAILABLE = "unavailable"
    """Any other transient failure: HTTP 5xx and the like, no connection, no reply in time, an unusable reply."""
    REFUSED = "refused"
    """The endpoint refused the request for good."""
    CANCELLED = "cancelled"
    """The caller no longer waits for the reply."""


class Observer(Protocol):
    """Receives each event when it happens. No method may block or raise.

    ``pool`` says which model is called in which role. ``caller`` is the trajectory that the request is made for; empty
    if there is none (see ``gpo.runtime.context``). Durations are in seconds.
    """

    def request_queued(self, pool: Pool, caller: str) -> None:
        """A request waits for the limits to let it through."""

    def request_abandoned(self, pool: Pool, caller: str) -> None:
        """A queued request was given up before it was sent."""

    def request_started(self, pool: Pool, caller: str, waited_s: float, *, is_retry: bool) -> None:
        """A queued request is about to be sent."""

    def request_ended(self, pool: Pool, caller: str, outcome: Outcome, duration_s: float, usage: Usage | None) -> None:
        """A request that was sent has ended; ``usage`` is what it cost, ``None`` if nothing was billed."""

    def call_failed(self, pool: Pool, caller: str, *, is_final: bool) -> None:
        """A call failed: after its last retry, or at once where the endpoint refused it for good (``is_final``)."""

    def cache_lookup(self, role: str, caller: str, *, is_hit: bool) -> None:
        """A completion came from the cache or from another caller's request (a hit), or was made (a miss)."""

    def checkpoint_saved(self, caller: str) -> None:
        """A checkpoint was written."""


class NullObserver:
    """An ``Observer`` that ignores every event."""

    def request_queued(self, pool: Pool, caller: str) -> None: ...

    def request_abandoned(self, pool: Pool, caller: str) -> None: ...

    def request_started(self, pool: Pool, caller: str, waited_s: float, *, is_retry: bool) -> None: ...

    def request_ended(
        self, pool: Pool, caller: str, outcome: Outcome, duration_s: float, usage: Usage | None
    ) -> None: ...

    def call_failed(self, pool: Pool, caller: str, *, is_final: bool) -> None: ...

    def cache_lookup(self, role: str, caller: str, *, is_hit: bool) -> None: ...

    def checkpoint_saved(self, caller: str) -> None: ...


_observer: Observer = NullObserver()


def install(observer: Observer) -> None:
    """Notify this observer from now on, in this process."""
    global _observer
    _observer = observer


def observer() -> Observer:
    """The observer of this process."""
    return _observer
