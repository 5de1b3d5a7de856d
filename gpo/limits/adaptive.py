"""How many calls an endpoint takes at once, found out by asking: additive increase, multiplicative decrease."""

from __future__ import annotations

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
        if version != self.version or calls == 0:  # a newer one is that of an authority that is no more
            return
        self._too_many = self.limit
        self.limit = max(1, min(int(self.limit * _DECREASE), self.limit - calls))
        self._rounds = 0.0
        self.version += 1

    def _rounds_needed(self) -> int:
        return _CAUTIOUS_ROUNDS if self._too_many and self.limit + 1 >= self._too_many else 1
