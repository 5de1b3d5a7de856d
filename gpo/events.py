"""What the parts tell of their work, as plain calls, to whoever counts it in this process; nobody, unless installed.

The algorithm knows no metrics system. Whoever starts a process installs an ``Observer`` there before anything else;
the gate, the endpoint, the cache and the trajectory tell it what happened. It is one for the whole process, since
what it tells apart comes with each call: the pool, and for whom the call is made.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from enum import StrEnum
from time import perf_counter
from typing import Protocol, TypeVar

from gpo.context import current_caller
from gpo.errors import ModelRefused, ModelUnavailable
from gpo.limits.messages import Pool
from gpo.models.protocol import Completion, Usage

_T = TypeVar("_T")
_R = TypeVar("_R")


class Outcome(StrEnum):
    """How one request to an endpoint ended."""

    ANSWERED = "answered"
    TOO_MANY = "too_many"
    """HTTP 429: one too many at the time."""
    UNAVAILABLE = "unavailable"
    """Any other transient failure: HTTP 5xx and the like, no connection, no reply in time, a reply of no use."""
    REFUSED = "refused"
    """A final no."""
    CANCELLED = "cancelled"
    """Nobody waits for it any more."""


class Observer(Protocol):
    """Is told what happens, at the moment it does; must neither block nor raise.

    ``pool`` says which model, in which role; ``caller`` the trajectory that a request is made for, empty where
    there is none (see ``gpo.context``). Durations are in seconds.
    """

    def request_queued(self, pool: Pool, caller: str) -> None:
        """A request wants to be made; it waits to be let through."""

    def request_abandoned(self, pool: Pool, caller: str) -> None:
        """It does not wait any more, and was not made."""

    def request_started(self, pool: Pool, caller: str, waited_s: float, *, is_retry: bool) -> None:
        """It is let through and about to be sent, after so long."""

    def request_ended(self, pool: Pool, caller: str, outcome: Outcome, duration_s: float, usage: Usage | None) -> None:
        """It came to its end after so long; ``usage`` is what it cost where it was answered."""

    def call_failed(self, pool: Pool, caller: str, *, is_final: bool) -> None:
        """A call was given up: after its last retry, or at once where the endpoint's no was final."""

    def cache_lookup(self, role: str, caller: str, *, is_hit: bool) -> None:
        """A completion was there already (or being made for somebody else); or it was not, and has been made."""

    def checkpoint_saved(self, caller: str) -> None:
        """A checkpoint was written."""


class NullObserver:
    """An ``Observer`` that tells nobody."""

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
_is_retry: ContextVar[bool] = ContextVar("is_retry", default=False)


def install(observer: Observer) -> None:
    """Tell this one from now on, in this process."""
    global _observer
    _observer = observer


def saved() -> None:
    """A checkpoint was written, of the trajectory that the current task works for."""
    _observer.checkpoint_saved(current_caller.get())


def looked_up(role: str, reply: Completion) -> Completion:
    """The reply as it is; it came through the cache."""
    _observer.cache_lookup(role, current_caller.get(), is_hit=reply.usage.cached > 0)
    return reply


async def call(
    pool: Pool, tried: Callable[[Callable[[], Awaitable[_T]]], Awaitable[_R]], once: Callable[[], Awaitable[_T]]
) -> _R:
    """What ``tried(once)`` returns: one call, of as many requests as it takes.

    Args:
        tried: makes one attempt after the other until one succeeds.
        once: an attempt.
    """
    is_first = True

    async def told() -> _T:
        nonlocal is_first
        if is_first:
            is_first = False
            return await once()
        before = _is_retry.set(True)
        try:
            return await once()
        finally:
            _is_retry.reset(before)

    try:
        return await tried(told)
    except (ModelUnavailable, ModelRefused) as failure:
        _observer.call_failed(pool, current_caller.get(), is_final=isinstance(failure, ModelRefused))
        raise


class Request:
    """One request to an endpoint, from the moment that it wants to be made."""

    __slots__ = ("_asked_by", "_began", "_observer", "_pool")

    def __init__(self, pool: Pool, caller: str) -> None:
        self._pool, self._asked_by, self._observer = pool, caller, _observer
        self._began = perf_counter()
        self._observer.request_queued(pool, caller)

    async def admitted(self, entering: Awaitable[None]) -> None:
        """Wait until it is let through."""
        try:
            await entering
        except BaseException:
            self._observer.request_abandoned(self._pool, self._asked_by)
            raise
        asked, self._began = self._began, perf_counter()
        self._observer.request_started(self._pool, self._asked_by, self._began - asked, is_retry=_is_retry.get())

    def ended(self, usage: Usage | None, *, was_refused: bool, error: BaseException | None) -> None:
        """It is over.

        Args:
            usage: what it cost; ``None`` where it was not answered.
            was_refused: whether it was one too many.
            error: what went wrong otherwise.
        """
        duration_s = perf_counter() - self._began
        self._observer.request_ended(self._pool, self._asked_by, _outcome(usage, was_refused, error), duration_s, usage)


def _outcome(usage: Usage | None, was_refused: bool, error: BaseException | None) -> Outcome:
    if usage is not None:
        return Outcome.ANSWERED
    if was_refused:
        return Outcome.TOO_MANY
    if isinstance(error, ModelRefused):
        return Outcome.REFUSED
    return Outcome.UNAVAILABLE if isinstance(error, ModelUnavailable) else Outcome.CANCELLED
