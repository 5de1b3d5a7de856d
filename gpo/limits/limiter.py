"""The one limiter over limits and budgets, for everybody who calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from gpo.limits.limiter_state import LimiterState
from gpo.limits.messages import Budget, Grant, Report, Spent


class Limiter(Protocol):
    """Grants what may be called. One object may serve all processes of a cluster."""

    async def exchange(self, report: Report, wait_s: float) -> Grant:
        """Take a report; reply when there is something new to grant, or after ``wait_s`` seconds.

        Raises:
            ConnectionError: it cannot be reached now, and may be later.
        """
        ...

    async def tell(self, report: Report) -> None:
        """Take a report; what follows from it comes with the reply to the holder's exchange under way.

        Raises:
            ConnectionError: it cannot be reached now, and may be later.
        """
        ...

    async def open_account(self, account: str, budget: Budget, spent: Spent) -> None:
        """Bound what the account may spend from now on.

        Args:
            spent: what of the budget is spent already.

        Raises:
            ConnectionError: it cannot be reached now, and may be later.
        """
        ...

    async def account_spent(self, account: str, budget: Budget, at_least: Spent) -> Spent:
        """What the account has spent since it was opened, with what was spent then.

        Args:
            budget, at_least: what the caller knows, and a limiter that was started anew does not.

        Raises:
            ConnectionError: it cannot be reached now, and may be later.
        """
        ...


class LocalLimiter:
    """A ``Limiter`` for gates in one event loop, or, as an actor, on one cluster.

    Everything it knows of the present it is told with every report, so one that was started anew knows it again as
    soon as the gates have reported; what an account has spent is made good by ``account_spent``.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._limiter = LimiterState(clock)
        self._news: tuple[asyncio.AbstractEventLoop | None, asyncio.Event] = (None, asyncio.Event())

    def __reduce__(self) -> tuple[type[LocalLimiter], tuple[Callable[[], float]]]:
        # A limiter holds for the gates that share the object: in another process, a copy starts without any.
        return type(self), (self._clock,)

    @property
    def is_idle(self) -> bool:
        """Whether nobody holds anything."""
        return self._limiter.is_idle

    async def exchange(self, report: Report, wait_s: float) -> Grant:
        """Take a report, and reply with what is new; see ``Limiter``."""
        self._take(report)
        deadline = self._clock() + wait_s
        while True:
            try:
                if (grant := self._limiter.grant(report.holder)) is not None:
                    return grant
                left_s = deadline - self._clock()
                if left_s <= 0:
                    return self._limiter.renewal(report.holder)
                wait = min(left_s, self._limiter.next_s(report.holder))
            except KeyError:  # it left while it waited
                return Grant(report.epoch, 0)
            try:
                async with asyncio.timeout(wait):
                    await self._news_here().wait()
            except TimeoutError:
                continue

    async def tell(self, report: Report) -> None:
        """Take a report; see ``Limiter``."""
        self._take(report)

    async def open_account(self, account: str, budget: Budget, spent: Spent) -> None:
        """Bound what the account may spend; see ``Limiter``."""
        self._limiter.account(account).open(budget, spent)
        self._tell_all()

    async def account_spent(self, account: str, budget: Budget, at_least: Spent) -> Spent:
        """What the account has spent; see ``Limiter``."""
        known = self._limiter.account(account)
        if known.budget is None:
            self._tell_all()
        known.make_good(budget, at_least)
        return known.spent

    def _take(self, report: Report) -> None:
        if self._limiter.take(report):
            self._tell_all()

    def _tell_all(self) -> None:
        self._news[1].set()
        self._news = (None, asyncio.Event())

    def _news_here(self) -> asyncio.Event:
        """An event of the loop that runs: one that was waited for in another cannot be waited for here."""
        loop, news = self._news
        if loop is not asyncio.get_running_loop():
            news = news if loop is None else asyncio.Event()
            self._news = (asyncio.get_running_loop(), news)
        return news
