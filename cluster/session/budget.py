"""A run's spending, limited by its budget."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from cluster.config.run import BudgetConfig
from cluster.results.run_record import RunRecord
from cluster.session.models import Access
from gpo.errors import BudgetExhausted, ClusterError
from gpo.limits.messages import Wait

_PATIENCE_S, _PAUSE_S = 30.0, 0.5


class BudgetTracker:
    """Opens a run's budget at the limiter, enforces its time limit, and keeps the record's spending up to date.

    It also knows what the calls wait for that the budget pays for.

    Args:
        record: holds the spending of earlier attempts.
    """

    def __init__(self, budget: BudgetConfig, access: Access, record: RunRecord) -> None:
        self._budget, self._access, self._record = budget, access, record
        self._left_s: float | None = None

    async def open(self, wall_s: float = 0.0) -> None:
        """Limit the spending from now on.

        Args:
            wall_s: seconds that the run has taken, over all attempts.

        Raises:
            BudgetExhausted: no time is left.
            ClusterError: the limiter does not start.
        """
        most = self._budget.wall_s
        if most is not None:
            self._left_s = most - wall_s
            if self._left_s <= 0:
                raise self._out_of_time()
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

    @asynccontextmanager
    async def time_limit(self) -> AsyncGenerator[None]:
        """Cancel the block when the time that was left at ``open`` is over.

        Raises:
            BudgetExhausted: it is.
        """
        try:
            async with asyncio.timeout(self._left_s) as time_left:
                yield
        except TimeoutError:
            if not time_left.expired():
                raise
            raise self._out_of_time() from None

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

    def _out_of_time(self) -> BudgetExhausted:
        return BudgetExhausted(f"budget.wall_s: {self._budget.wall_s:g} s are over")
