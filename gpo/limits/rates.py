"""Rates per minute, and a concurrency limit that adapts to refusals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from gpo.limits.messages import Pool

_WINDOW_S = 60.0


class MinuteRate:
    """A token bucket that allows at most ``limit`` in any 60 seconds, evenly spread.

    The bucket holds one second's worth. Its content and the inflow of a minute add up to the limit. ``now`` is in
    seconds, on any clock that never decreases.
    """

    def __init__(self, limit: int, now: float) -> None:
        self._now, self._level, self._per_s = now, inf, 0.0
        self._limit, self._capacity = 0, inf
        self.change(limit, now)

    def change(self, limit: int, now: float) -> None:
        """Change the limit; what was taken stays taken."""
        if limit == self._limit:
            return
        self.available(now)
        self._limit, self._capacity = limit, max(1.0, limit / _WINDOW_S)
        beyond_one = self._capacity if self._capacity > 1 else 0.0
        self._per_s = (limit - beyond_one) / _WINDOW_S
        self._level = min(self._level, self._capacity)

    def available(self, now: float) -> float:
        """The amount that can be taken; negative after an overdraft."""
        self._level = min(self._capacity, self._level + max(0.0, now - self._now) * self._per_s)
        self._now = max(now, self._now)
        return self._level

    def allows(self, amount: float, now: float) -> bool:
        """Whether this amount can be taken now; one larger than the bucket can be taken when the bucket is full."""
        return self.available(now) >= min(amount, self._capacity)

    def take(self, amount: float, now: float) -> None:
        """Take this amount; a negative one is given back."""
        self._level = min(self._capacity, self.available(now) - amount)

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until this amount can be taken."""
        return max(0.0, (min(amount, self._capacity) - self.available(now)) / self._per_s)


@dataclass(slots=True)
class ModelRates:
    """Requests and tokens per minute of one model."""

    requests: MinuteRate | None = None
    tokens: MinuteRate | None = None

    def update(self, pools: Sequence[Pool], now: float) -> None:
        """Use the lowest rates of these pools."""
        self.requests = _changed(self.requests, [pool.requests_per_min for pool in pools], now)
        self.tokens = _changed(self.tokens, [pool.tokens_per_min for pool in pools], now)

    def calls(self, tokens_each: float, now: float) -> float:
        """How many requests may start now."""
        calls = inf
        for rate, amount in ((self.requests, 1.0), (self.tokens, max(1.0, tokens_each))):
            if rate is not None:
                calls = min(calls, max(rate.available(now) // amount, 1.0 if rate.allows(amount, now) else 0.0))
        return calls

    def wait_s(self, tokens_each: float, now: float) -> float:
        """Seconds until one more may start."""
        waits = [(self.requests, 1.0), (self.tokens, max(1.0, tokens_each))]
        return max((rate.wait_s(amount, now) for rate, amount in waits if rate is not None), default=0.0)

    def take(self, calls: int, tokens_each: float, now: float) -> None:
        """Count requests that may start."""
        if self.requests is not None:
            self.requests.take(calls, now)
        if self.tokens is not None:
            self.tokens.take(calls * max(1.0, tokens_each), now)

    def settle(self, tokens_beyond: float, now: float) -> None:
        """Count tokens beyond those expected; negative if fewer were used."""
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
"""Rounds without refusals before the last refused number is tried again: an endpoint's limit rarely changes, and each
try costs refused requests."""


class AdaptiveConcurrency:
    """A concurrency limit that adapts to refusals (additive increase, multiplicative decrease).

    The limit rises by one after each round of answered requests (as many as the limit). Just below the number that was
    refused last, it rises only after 25 rounds. When requests are refused, the limit falls by a tenth or by the number
    of refusals, whichever is more.

    Attributes:
        limit: requests in flight, in [1, ceiling].
        version: rises when the limit is lowered. Refusals of requests that started under an older version are old news.
    """

    def __init__(self, ceiling: int) -> None:
        self.limit, self.version = ceiling, 0
        self._ceiling, self._too_many, self._rounds = ceiling, 0, 0.0

    def set_ceiling(self, ceiling: int) -> None:
        """Change the upper bound; a limit that refusals never lowered follows it."""
        if self.limit == self._ceiling:
            self.limit = ceiling
        self._ceiling, self.limit = ceiling, min(self.limit, ceiling)

    def succeeded(self, calls: int) -> None:
        """Count answered requests."""
        if self.limit >= self._ceiling:
            return
        self._rounds += calls / self.limit
        while self.limit < self._ceiling and self._rounds >= (needed := self._rounds_needed()):
            self._rounds -= needed
            if needed > 1:
                self._too_many = 0  # tried now; noted again if it is refused again
            self.limit += 1

    def refused(self, calls: int, version: int) -> None:
        """Count refused requests that started under this version."""
        if version != self.version or calls == 0:  # a newer version is that of a limiter before a restart
            return
        self._too_many = self.limit
        self.limit = max(1, min(int(self.limit * _DECREASE), self.limit - calls))
        self._rounds = 0.0
        self.version += 1

    def _rounds_needed(self) -> int:
        return _CAUTIOUS_ROUNDS if self._too_many and self.limit + 1 >= self._too_many else 1
