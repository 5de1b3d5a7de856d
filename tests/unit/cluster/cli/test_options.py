from __future__ import annotations

import pytest

from cluster.cli.options import is_success, with_deadline
from cluster.config.run import RunConfig
from tests.configs import submitted_config


@pytest.mark.parametrize(
    ("own", "deadline", "expected"),
    [(None, None, None), (None, 60.0, 60.0), (90.0, 60.0, 60.0), (30.0, 60.0, 30.0), (30.0, None, 30.0)],
)
def test_the_smaller_of_deadline_and_budget_counts(
    own: float | None, deadline: float | None, expected: float | None
) -> None:
    config = RunConfig.model_validate(submitted_config() | {"budget": {"wall_s": own, "calls": 9}})
    bounded = with_deadline(config, deadline)
    assert (bounded.budget.wall_s, bounded.budget.calls) == (expected, 9)
    assert bounded.model_copy(update={"budget": config.budget}) == config


def test_a_budget_that_ended_the_work_is_a_success_only_if_asked() -> None:
    assert is_success("completed", budget_ok=False)
    assert not is_success("budget_exhausted", budget_ok=False)
    assert is_success("budget_exhausted", budget_ok=True)
    for status in ("interrupted", "failed"):
        assert not is_success(status, budget_ok=True)
