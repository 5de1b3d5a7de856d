"""The limiter over concurrency, rates and budgets: its protocol, and the plain object behind it."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from gpo.limits.limiter_state import LimiterState
from gpo.limits.messages import Budget, Grant, Report, Spent, Wait


class Limiter(Protocol):
    """Grants slots and permits to gates. One object may serve all processes of a cluster.

    Every method raises ``ConnectionError`` while the limiter cannot be reached.
    """

    async def exchange(self, report: Report, wait_s: float) -> Grant:
        """Take a report; reply once there is something new to grant, or after ``wait_s`` seconds."""
        ...

    async def notify(self, report: Report) -> None:
        """Take a report; the holder's pending ``exchange`` returns what follows from it."""
        ...

    async def open_budget(self, name: str, budget: Budget, spent: Spent) -> None:
        """Set or replace a budget.

        Args:
            spent: the part of it that is spent already.
        """
        ...

    async def budget_spent(self, name: str, budget: Budget, at_least: Spent) -> Spent:
        """What was spent of a budget in total, including what was spent before it was opened.

        Args:
            budget, at_least: the budget and its spending as the caller knows them, for a restarted limiter.
        """
        ...

    async def longest_wait(self, budget_name: str) -> Wait | None:
        """The longest wait for an endpoint, of the calls that a budget pays for; ``None`` if none is long."""
        ...


class LocalLimiter:
    """A ``Limiter`` for the gates of one event loop, or, as an actor, of a cluster.

    A restarted limiter knows all slots and permits again as soon as the gates have reported. It knows the
    spending again once ``budget_spent`` is called.

    Args:
        is_successor: whether an earlier limiter may have granted slots that are still held.
    """

    def __init__(self, *, is_successor: bool = False) -> None:
        self._state = LimiterState(time.monotonic, is_successor=is_successor)
        self._changed: tuple[asyncio.AbstractEventLoop | None, asyncio.Event] = (None, asyncio.Event())

    def __reduce__(self) -> tuple[type[LocalLimiter], tuple[()]]:
        # A limiter serves the gates that share the object; a copy in another process starts without any.
        return type(self), ()

    @property
    def is_idle(self) -> bool:
        """Whether no gate holds anything."""
        return self._state.is_idle

    def uses(self, endpoint: str) -> bool:
        """Whether a gate sends requests to the endpoint."""
        return self._state.uses(endpoint)

    def divide(self, endpoint: str, clusters: int) -> None:
        """Use one of so many equal parts of the endpoint's limits; the other parts belong to other limiters."""
        if self._state.divide(endpoint, clusters):
            self._wake_all()

    async def exchange(self, report: Report, wait_s: float) -> Grant:
        """Take a report and reply; see ``Limiter``."""
        self._take(report)
        deadline = time.monotonic() + wait_s
        while True:
            try:
                if (grant := self._state.grant(report.holder)) is not None:
                    return grant
                remaining_s = deadline - time.monotonic()
                if remaining_s <= 0:
                    return self._state.renewal(report.holder)
                timeout_s = min(remaining_s, self._state.next_s(report.holder))
            except KeyError:  # the holder left meanwhile
                return Grant(report.epoch, 0)
            try:
                async with asyncio.timeout(timeout_s):
                    await self._change().wait()
            except TimeoutError:
                continue

    async def notify(self, report: Report) -> None:
        """Take a report; see ``Limiter``."""
        self._take(report)

    async def open_budget(self, name: str, budget: Budget, spent: Spent) -> None:
        """Set or replace a budget; see ``Limiter``."""
        self._state.account(name).open(budget, spent)
        self._wake_all()

    async def budget_spent(self, name: str, budget: Budget, at_least: Spent) -> Spent:
        """What was spent in total; see ``Limiter``."""
        account = self._state.account(name)
        if account.budget is None:
            self._wake_all()
        account.restore(budget, at_least)
        return account.spent

    async def longest_wait(self, budget_name: str) -> Wait | None:
        """The longest wait for an endpoint; see ``Limiter``."""
        return self._state.longest_wait(budget_name)

    def _take(self, report: Report) -> None:
        if self._state.take(report):
            self._wake_all()

    def _wake_all(self) -> None:
        self._changed[1].set()
        self._changed = (None, asyncio.Event())

    def _change(self) -> asyncio.Event:
        """An event of the running loop: a task cannot wait for an event that another loop uses."""
        loop, event = self._changed
        if loop is not asyncio.get_running_loop():
            event = event if loop is None else asyncio.Event()
            self._changed = (asyncio.get_running_loop(), event)
        return event
