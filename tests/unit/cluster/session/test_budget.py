from __future__ import annotations

import asyncio

import pytest

from cluster.config.run import BudgetConfig
from cluster.results.run_record import RunRecord
from cluster.session.budget import BudgetTracker
from cluster.session.models import Access
from gpo.errors import BudgetExhausted, ClusterError
from gpo.limits.limiter import LocalLimiter
from gpo.limits.messages import Budget, Spent


def _tracker(budget: BudgetConfig, record: RunRecord) -> BudgetTracker:
    return BudgetTracker(budget, Access({}, LocalLimiter(), "run"), record)


async def test_time_counts_over_all_attempts() -> None:
    record = RunRecord("run", started_at=0.0)
    tracker = _tracker(BudgetConfig(wall_s=60), record)
    await tracker.open(wall_s=59.95)
    with pytest.raises(BudgetExhausted, match=r"budget.wall_s: 60 s are over"):
        async with tracker.time_limit():
            await asyncio.sleep(30)
    with pytest.raises(BudgetExhausted, match=r"budget.wall_s: 60 s are over"):
        await tracker.open(wall_s=60.0)
    unlimited = _tracker(BudgetConfig(), record)
    await unlimited.open(wall_s=1e9)
    async with unlimited.time_limit():
        pass


async def test_a_resumed_run_has_the_budget_that_earlier_attempts_left() -> None:
    record = RunRecord("run", started_at=0.0, reported=Spent(calls=40, tokens=100))
    tracker = _tracker(BudgetConfig(calls=50), record)
    await tracker.open()
    await tracker.update()
    assert record.spent == Spent(calls=40, tokens=100)


class _Leaving(LocalLimiter):
    """A limiter that cannot be reached for the first calls."""

    def __init__(self, away_for: int) -> None:
        super().__init__()
        self._away_for = away_for

    async def open_budget(self, name: str, budget: Budget, spent: Spent) -> None:
        self._away_for -= 1
        if self._away_for >= 0:
            raise ConnectionError("it died")
        await super().open_budget(name, budget, spent)


async def test_opening_a_budget_is_retried_while_the_limiter_of_an_earlier_run_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cluster.session.budget._PAUSE_S", 0.0)
    record = RunRecord("run", started_at=0.0, reported=Spent(calls=3))
    tracker = BudgetTracker(BudgetConfig(calls=50), Access({}, _Leaving(2), "run"), record)
    await tracker.open()
    await tracker.update()
    assert record.spent.calls == 3
    monkeypatch.setattr("cluster.session.budget._PATIENCE_S", 0.1)
    with pytest.raises(ClusterError, match="did not start: it died"):
        await BudgetTracker(BudgetConfig(), Access({}, _Leaving(10**9), "run"), record).open()
