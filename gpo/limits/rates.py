"""So many a minute: a token bucket."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from gpo.limits.messages import Pool

_WINDOW_S = 60.0


class MinuteRate:
    """Hands out at most ``limit`` in any 60 seconds, evenly spread.

    A bucket that holds a second's worth, and is filled so that its content and what flows in during a minute are the
    limit together. ``now`` is a time in seconds on any clock that only goes forward.
    """

    def __init__(self, limit: int, now: float) -> None:
        self._now, self._level, self._per_s = now, inf, 0.0
        self._limit, self._capacity = 0, inf
        self.change(limit, now)

    def change(self, limit: int, now: float) -> None:
        """Hold to another limit from now on; what was taken stays taken."""
        if limit == self._limit:
            return
        self.available(now)
        self._limit, self._capacity = limit, max(1.0, limit / _WINDOW_S)
        beyond_one = self._capacity if self._capacity > 1 else 0.0
        self._per_s = (limit - beyond_one) / _WINDOW_S
        self._level = min(self._level, self._capacity)

    def available(self, now: float) -> float:
        """What can be taken; negative after more was taken than there was."""
        self._level = min(self._capacity, self._level + max(0.0, now - self._now) * self._per_s)
        self._now = max(now, self._now)
        return self._level

    def takes(self, amount: float, now: float) -> bool:
        """Whether so much can be taken now. More than the bucket holds can be when it is full."""
        return self.available(now) >= min(amount, self._capacity)

    def take(self, amount: float, now: float) -> None:
        """Take so much; negative gives back."""
        self._level = min(self._capacity, self.available(now) - amount)

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until so much can be taken."""
        return max(0.0, (min(amount, self._capacity) - self.available(now)) / self._per_s)


@dataclass(slots=True)
class ModelRates:
    """Requests and tokens a minute of one model."""

    requests: MinuteRate | None = None
    tokens: MinuteRate | None = None

    def hold_to(self, pools: Sequence[Pool], now: float) -> None:
        """Heed the lowest rates that pools name."""
        self.requests = _changed(self.requests, [pool.requests_per_min for pool in pools], now)
        self.tokens = _changed(self.tokens, [pool.tokens_per_min for pool in pools], now)

    def calls(self, tokens_each: float, now: float) -> float:
        """How many calls may be made now."""
        calls = inf
        for rate, amount in ((self.requests, 1.0), (self.tokens, max(1.0, tokens_each))):
            if rate is not None:
                calls = min(calls, max(rate.available(now) // amount, 1.0 if rate.takes(amount, now) else 0.0))
        return calls

    def wait_s(self, tokens_each: float, now: float) -> float:
        """Seconds until one more may be made."""
        waits = [(self.requests, 1.0), (self.tokens, max(1.0, tokens_each))]
        return max((rate.wait_s(amount, now) for rate, amount in waits if rate is not None), default=0.0)

    def take(self, calls: int, tokens_each: float, now: float) -> None:
        """So many are made."""
        if self.requests is not None:
            self.requests.take(calls, now)
        if self.tokens is not None:
            self.tokens.take(calls * max(1.0, tokens_each), now)

    def settle(self, tokens_beyond: float, now: float) -> None:
        """They took so many tokens more than expected."""
        if self.tokens is not None:
            self.tokens.take(tokens_beyond, now)


def _changed(known: MinuteRate | None, limits: Sequence[int | None], now: float) -> MinuteRate | None:
    limit = min((one for one in limits if one is not None), default=None)
    if limit is None:
        return None
    if known is None:
        return MinuteRate(limit, now)
    known.change(limit, now)
    return known


_DECREASE = 0.9
_CAUTIOUS_ROUNDS = 25
"""Rounds at a limit that holds before the number that was too many last time is tried again: an endpoint's limit rarely
changes, and each try costs refused calls."""


class AdaptiveConcurrency:
    """A limit that follows refusals.

    Where one round of calls (as many as the limit) was answered, one more is tried, but just below the number that was
    too many before, this waits for ``25`` rounds. When calls are refused, the limit falls by a tenth or by as many as
    were refused, whichever is more.

    Attributes:
        limit: calls at once, in [1, ceiling].
        version: rises when the limit is lowered. Refusals of calls that were begun under an older version tell nothing
            new.
    """

    def __init__(self, ceiling: int) -> None:
        self.limit, self.version = ceiling, 0
        self._ceiling, self._too_many, self._rounds = ceiling, 0, 0.0

    def set_ceiling(self, ceiling: int) -> None:
        """Never go beyond; one that was not reached by refusals moves the limit along."""
        if self.limit == self._ceiling:
            self.limit = ceiling
        self._ceiling, self.limit = ceiling, min(self.limit, ceiling)

    def succeeded(self, calls: int) -> None:
        """So many were answered."""
        if self.limit >= self._ceiling:
            return
        self._rounds += calls / self.limit
        while self.limit < self._ceiling and self._rounds >= (needed := self._rounds_needed()):
            self._rounds -= needed
            if needed > 1:
                self._too_many = 0  # it is tried now, and counts again once it is refused again
            self.limit += 1

    def refused(self, calls: int, version: int) -> None:
        """So many that were begun under this version were too many."""
        if version != self.version or calls == 0:  # a newer one is that of a limiter that is no more
            return
        self._too_many = self.limit
        self.limit = max(1, min(int(self.limit * _DECREASE), self.limit - calls))
        self._rounds = 0.0
        self.version += 1

    def _rounds_needed(self) -> int:
        return _CAUTIOUS_ROUNDS if self._too_many and self.limit + 1 >= self._too_many else 1
