from __future__ import annotations

import pytest

from cluster.config.root import BudgetConfig
from cluster.results.outputs import RunRecord
from cluster.session.budget import Spending
from cluster.session.models import Access
from gpo.errors import BudgetExhausted, ClusterError
from gpo.limits.limiter import LocalLimiter
from gpo.limits.messages import Budget, Spent


def _spending(budget: BudgetConfig, record: RunRecord) -> Spending:
    return Spending(budget, Access({}, LocalLimiter(), "run"), record)


def test_time_counts_over_all_sittings() -> None:
    record = RunRecord("run", started_at=0.0)
    assert _spending(BudgetConfig(), record).left_s(1e9) is None
    spending = _spending(BudgetConfig(wall_s=60), record)
    assert spending.left_s(45.0) == 15.0
    with pytest.raises(BudgetExhausted, match=r"budget.wall_s: 60 s are over"):
        spending.left_s(60.0)


async def test_a_resumed_run_has_what_earlier_sittings_left() -> None:
    record = RunRecord("run", started_at=0.0, reported=Spent(calls=40, tokens=100))
    spending = _spending(BudgetConfig(calls=50), record)
    await spending.open()
    await spending.look()
    assert record.spent == Spent(calls=40, tokens=100)


class _Leaving(LocalLimiter):
    """One that is not there for the first calls."""

    def __init__(self, away_for: int) -> None:
        super().__init__()
        self._away_for = away_for

    async def open_account(self, account: str, budget: Budget, spent: Spent) -> None:
        self._away_for -= 1
        if self._away_for >= 0:
            raise ConnectionError("it died")
        await super().open_account(account, budget, spent)


async def test_an_authority_that_ends_with_another_run_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.session.budget._PAUSE_S", 0.0)
    record = RunRecord("run", started_at=0.0, reported=Spent(calls=3))
    spending = Spending(BudgetConfig(calls=50), Access({}, _Leaving(2), "run"), record)
    await spending.open()
    await spending.look()
    assert record.spent.calls == 3
    monkeypatch.setattr("cluster.session.budget._PATIENCE_S", 0.1)
    with pytest.raises(ClusterError, match="did not come up: it died"):
        await Spending(BudgetConfig(), Access({}, _Leaving(10**9), "run"), record).open()
