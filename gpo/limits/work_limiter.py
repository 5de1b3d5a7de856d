"""How much one process takes on at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gpo.context import current_caller
from gpo.limits.fair_queue import FairQueue


class WorkLimiter:
    """Lets work in until the room is full, the rest in turns of a roomful.

    Work that waits inside an event loop costs time there before any of it is done: thousands of evaluations that are
    begun together would keep the endpoint waiting for seconds.

    Args:
        size: of the work that is let in; a piece that is larger has the room to itself.
    """

    def __init__(self, size: float) -> None:
        self._size, self._taken = size, 0.0
        self._waiting: FairQueue[tuple[asyncio.Future[None], float]] = FairQueue(turn=size)
        self._next: tuple[asyncio.Future[None], float] | None = None

    @asynccontextmanager
    async def entered(self, size: float) -> AsyncIterator[None]:
        """WorkLimiter for a piece of work of this size, once it is its turn; callers are told apart by ``caller``."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.push(current_caller.get(), (place, size), size)
        self._admit()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._leave(size)
            raise
        try:
            yield
        finally:
            self._leave(size)

    def _leave(self, size: float) -> None:
        self._taken -= size
        self._admit()

    def _admit(self) -> None:
        while self._next is not None or self._waiting:
            if self._next is None:
                self._next = self._waiting.pop()[1]
            place, size = self._next
            if not place.done():
                if self._taken and self._taken + size > self._size:
                    return
                self._taken += size
                place.set_result(None)
            self._next = None
