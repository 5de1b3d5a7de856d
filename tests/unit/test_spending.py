from __future__ import annotations

import pytest

from cluster.build import Access
from cluster.config.root import BudgetConfig
from cluster.outputs import RunRecord
from cluster.spending import Spending
from gpo.errors import BudgetExhausted
from gpo.limits.authority import LimitAuthority
from gpo.limits.messages import Spent


def _spending(budget: BudgetConfig, record: RunRecord) -> Spending:
    return Spending(budget, Access({}, LimitAuthority(), "run"), record)


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
