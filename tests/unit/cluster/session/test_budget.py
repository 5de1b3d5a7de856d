from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest
from ray.serve.schema import ApplicationStatus

from cluster.config.run import BudgetConfig
from cluster.results.run_record import RunRecord
from cluster.session import deployments
from cluster.session.budget import BudgetTracker, TimeLimit
from cluster.session.models import Access
from gpo.errors import BudgetExhausted, ClusterError
from gpo.limits.limiter import LocalLimiter
from gpo.limits.messages import Budget, Spent


def _tracker(budget: BudgetConfig, record: RunRecord) -> BudgetTracker:
    return BudgetTracker(budget, Access({}, LocalLimiter(), "run"), record)


async def test_time_counts_over_all_attempts_from_the_start_of_the_command() -> None:
    record = RunRecord("run", started_at=0.0, began=time.monotonic() - 20, wall_s=39.95)
    with pytest.raises(BudgetExhausted, match=r"budget.wall_s: 60 s are over"):
        async with TimeLimit.of(BudgetConfig(wall_s=60), record).enforced():
            await asyncio.sleep(30)
    record.wall_s = 40.0
    over = TimeLimit.of(BudgetConfig(wall_s=60), record)
    assert over.is_over
    with pytest.raises(BudgetExhausted, match=r"budget.wall_s: 60 s are over"):
        async with over.enforced():
            pytest.fail("nothing may begin")
    record.wall_s = 1e9
    async with TimeLimit.of(BudgetConfig(), record).enforced():
        pass


def test_an_evaluator_that_no_node_can_take_is_not_awaited_beyond_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    limit, asked = TimeLimit(60.0, began=time.monotonic()), 0

    def status() -> SimpleNamespace:
        nonlocal asked, limit
        asked += 1
        if asked == 3:  # an hour later
            monkeypatch.setattr("cluster.session.budget.time", SimpleNamespace(monotonic=lambda: limit.began + 3600))
        assert asked < 100, "it waits for ever"
        return SimpleNamespace(applications={"run": SimpleNamespace(status=ApplicationStatus.DEPLOYING)})

    monkeypatch.setattr(deployments, "ray_serve", SimpleNamespace(status=status))
    monkeypatch.setattr(deployments.time, "sleep", lambda _: None)
    with pytest.raises(BudgetExhausted, match=r"budget.wall_s: 60 s are over"), limit.while_waiting():
        deployments._problem("run")
    assert asked == 3


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
