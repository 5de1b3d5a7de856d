"""What a run spends, and the time that it takes, limited by its budget."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from math import inf

from cluster.config.run import BudgetConfig
from cluster.results.run_record import RunRecord
from cluster.session.interrupts import limited_by
from cluster.session.models import Access
from gpo.errors import BudgetExhausted, ClusterError
from gpo.limits.messages import Wait

SAVED_EVERY_S = 10.0
"""How often the time of work is saved; a killed process loses no more than that."""

_PATIENCE_S, _PAUSE_S = 30.0, 0.5


@dataclass(frozen=True, slots=True)
class TimeLimit:
    """The time that work may take, over all attempts.

    Attributes:
        most_s: ``budget.wall_s``; ``None`` is no limit.
        began: ``time.monotonic()`` at which the work would have begun without a pause between its attempts.
    """

    most_s: float | None
    began: float

    @classmethod
    def of(cls, budget: BudgetConfig, record: RunRecord) -> TimeLimit:
        """That of a run, whose attempt begins now if it has not begun."""
        began = time.monotonic() if record.began is None else record.began
        return cls(budget.wall_s, began - record.wall_s)

    @property
    def spent_s(self) -> float:
        """Seconds of work so far."""
        return time.monotonic() - self.began

    @property
    def left_s(self) -> float:
        """Seconds that are left, infinite without a limit; 0 or less if the time is over."""
        return inf if self.most_s is None else self.most_s - self.spent_s

    @property
    def is_over(self) -> bool:
        """Whether no time is left."""
        return self.left_s <= 0

    def require_left(self) -> None:
        """Check that time is left.

        Raises:
            BudgetExhausted: none is.
        """
        if self.is_over:
            raise self._exceeded()

    @contextmanager
    def while_waiting(self, save: Callable[[], object] = lambda: None) -> Iterator[None]:
        """End the waits in the block, which are outside any event loop, when the time is over.

        Args:
            save: saves the time of work; called every 10 s of such a wait.

        Raises:
            BudgetExhausted: it is.
        """
        saved = time.monotonic()

        def check() -> None:
            nonlocal saved
            self.require_left()
            if time.monotonic() - saved > SAVED_EVERY_S:
                save()
                saved = time.monotonic()

        self.require_left()
        with limited_by(check):
            yield

    @asynccontextmanager
    async def enforced(self) -> AsyncGenerator[None]:
        """Cancel the block when the time is over.

        Raises:
            BudgetExhausted: it is.
        """
        self.require_left()
        try:
            async with asyncio.timeout(None if self.most_s is None else self.left_s) as time_left:
                yield
        except TimeoutError:
            if not time_left.expired():
                raise
            raise self._exceeded() from None

    def _exceeded(self) -> BudgetExhausted:
        return BudgetExhausted(f"budget.wall_s: {self.most_s:g} s are over")


class BudgetTracker:
    """Opens a run's budget at the limiter, and keeps the record's spending up to date.

    It also knows what the calls wait for that the budget pays for.

    Args:
        record: holds the spending of earlier attempts.
    """

    def __init__(self, budget: BudgetConfig, access: Access, record: RunRecord) -> None:
        self._budget, self._access, self._record = budget, access, record

    async def open(self) -> None:
        """Limit the spending from now on.

        Raises:
            ClusterError: the limiter does not start.
        """
        last: ConnectionError | None = None
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while True:
                    try:
                        return await self._access.limiter.open_budget(
                            self._access.budget_name, self._budget.build(), self._record.spent
                        )
                    except ConnectionError as lost:
                        # The limiter of a killed run may still hold the name while it ends; a retry starts another.
                        last = lost
                        await asyncio.sleep(_PAUSE_S)
        except TimeoutError:
            raise ClusterError(f"the limiter did not start: {last or 'no answer'}") from None

    async def update(self) -> None:
        """Update the record's spending; leave it unchanged while the limiter cannot be reached."""
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(_PATIENCE_S):
                self._record.reported = await self._access.limiter.budget_spent(
                    self._access.budget_name, self._budget.build(), self._record.reported
                )

    async def longest_wait(self) -> Wait | None:
        """The longest wait for an endpoint; ``None`` if none is long, or while the limiter cannot be reached."""
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(_PATIENCE_S):
                return await self._access.limiter.longest_wait(self._access.budget_name)
        return None
