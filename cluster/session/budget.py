"""What a run has spent, held against its budget."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from cluster.config.root import BudgetConfig
from cluster.results.outputs import RunRecord
from cluster.session.models import Access
from gpo.errors import BudgetExhausted, ClusterError

_PATIENCE_S, _PAUSE_S = 30.0, 0.5


class Spending:
    """The run's account with the limiter over budgets.

    Args:
        record: what earlier sittings spent; kept up to date.
    """

    def __init__(self, budget: BudgetConfig, access: Access, record: RunRecord) -> None:
        self._budget, self._access, self._record = budget, access, record

    def left_s(self, wall_s: float) -> float | None:
        """Seconds that are left after so many; ``None`` where nothing bounds them.

        Raises:
            BudgetExhausted: none are.
        """
        most = self._budget.wall_s
        if most is None:
            return None
        if wall_s >= most:
            raise BudgetExhausted(f"budget.wall_s: {most:g} s are over")
        return most - wall_s

    async def open(self) -> None:
        """Bound what may be spent from now on.

        Raises:
            ClusterError: the limiter does not come up.
        """
        last: ConnectionError | None = None
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while True:
                    try:
                        return await self._access.limiter.open_account(
                            self._access.account, self._budget.build(), self._record.spent
                        )
                    except ConnectionError as lost:
                        # One that still went by the name was of a run that had been killed, and ended with what was
                        # left of it; asked again, another one is started.
                        last = lost
                        await asyncio.sleep(_PAUSE_S)
        except TimeoutError:
            raise ClusterError(f"the limiter did not come up: {last or 'no answer'}") from None

    async def look(self) -> None:
        """Bring the record up to date; a limiter that is out of reach has nothing to say."""
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(_PATIENCE_S):
                self._record.reported = await self._access.limiter.account_spent(
                    self._access.account, self._budget.build(), self._record.reported
                )
