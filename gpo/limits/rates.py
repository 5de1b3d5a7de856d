"""So many a minute: a token bucket."""

from __future__ import annotations

_WINDOW_S = 60.0


class MinuteRate:
    """Hands out at most ``limit`` in any 60 seconds, evenly spread.

    A bucket that holds a second's worth, and is filled so that its content and what flows in during a minute are the
    limit together. ``now`` is a time in seconds on any clock that only goes forward.
    """

    def __init__(self, limit: int, now: float) -> None:
        self._limit, self._now = limit, now
        self._capacity = max(1.0, limit / _WINDOW_S)
        self._per_s = (limit - self._capacity + 1) / _WINDOW_S
        self._level = self._capacity

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
