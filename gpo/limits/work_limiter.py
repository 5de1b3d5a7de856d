"""A bound on the work that one process does at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gpo.limits.fairness import FairQueue
from gpo.runtime.context import current_caller


class WorkLimiter:
    """Admits work up to a total size; the rest waits, and callers take turns of that size.

    Tasks that wait inside an event loop cost time before they do anything: thousands of evaluations that start together
    would leave the endpoint idle for seconds.

    Args:
        size: total size of the admitted work; a larger piece is admitted alone.
    """

    def __init__(self, size: float) -> None:
        self._size, self._used = size, 0.0
        self._waiting: FairQueue[tuple[asyncio.Future[None], float]] = FairQueue(turn=size)
        self._next: tuple[asyncio.Future[None], float] | None = None

    @asynccontextmanager
    async def entered(self, size: float) -> AsyncIterator[None]:
        """Wait for the turn of a piece of work of this size, and do it inside the block; see ``current_caller``."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.push(current_caller.get(), (turn, size), size)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave(size)
            raise
        try:
            yield
        finally:
            self._leave(size)

    def _leave(self, size: float) -> None:
        self._used -= size
        self._admit()

    def _admit(self) -> None:
        while self._next is not None or self._waiting:
            if self._next is None:
                self._next = self._waiting.pop()[1]
            turn, size = self._next
            if not turn.done():
                if self._used and self._used + size > self._size:
                    return
                self._used += size
                turn.set_result(None)
            self._next = None
