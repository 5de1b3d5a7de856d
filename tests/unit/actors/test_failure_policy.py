from __future__ import annotations

import pytest

from actors.failure_policy import Fault, Remedy, RetryLimits, ends_run, fault_of, lost, remedy_for
from gpo.errors import (
    BudgetExhausted,
    CheckpointError,
    EvaluationError,
    ModelRefused,
    OutOfReach,
    Part,
    RefusalReason,
    StorageError,
)

RETRY_LIMITS = RetryLimits(crashes=2, node_losses=5, no_contacts=3, evaluator=2, limiter=2)
IN_ITS_ACTOR = [Fault.CRASH, Fault.NODE_LOSS, Fault.NO_CONTACT]


@pytest.mark.parametrize(
    ("error", "fault", "ends"),
    [
        (OutOfReach(Part.EVALUATOR, "gone"), Fault.EVALUATOR, False),
        (OutOfReach(Part.LIMITER, "gone"), Fault.LIMITER, False),
        (ModelRefused("no", RefusalReason.KEY), None, True),
        (ModelRefused("no", RefusalReason.MODEL), None, True),
        (ModelRefused("no", RefusalReason.REQUEST), None, False),
        (BudgetExhausted("budget.calls"), None, True),
        (StorageError("no space"), None, True),
        (CheckpointError("damaged"), None, False),
        (EvaluationError("unscored"), None, False),
        (RuntimeError("a defect"), None, False),
    ],
    ids=str,
)
def test_an_error_is_a_fault_or_ends_its_trajectory_or_the_run(
    error: Exception, fault: Fault | None, ends: bool
) -> None:
    assert fault_of(error) is fault
    assert ends_run(error) == ends


@pytest.mark.parametrize(
    ("fault", "remedy", "waits_s"),
    [
        (Fault.CRASH, Remedy.RESTART, [0.0, 2.0]),
        (Fault.NODE_LOSS, Remedy.RESTART, [0.0, 2.0, 4.0, 8.0, 16.0]),
        (Fault.NO_CONTACT, Remedy.ASK_AGAIN, [1.0, 2.0, 4.0]),
        (Fault.EVALUATOR, Remedy.ASK_AGAIN, [1.0, 2.0]),
        (Fault.LIMITER, Remedy.ASK_AGAIN, [1.0, 2.0]),
    ],
)
@pytest.mark.parametrize("is_alone", [True, False])
def test_within_the_budget_each_retry_waits_longer(
    fault: Fault, remedy: Remedy, waits_s: list[float], is_alone: bool
) -> None:
    remedies = [remedy_for(fault, times + 1, RETRY_LIMITS, is_alone=is_alone) for times in range(len(waits_s))]
    assert remedies == [(remedy, wait_s) for wait_s in waits_s]
    assert len(waits_s) == RETRY_LIMITS.of(fault)


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize("is_alone", [True, False])
def test_beyond_the_budget_a_trajectory_is_isolated_if_that_can_help_and_else_lost(
    fault: Fault, is_alone: bool
) -> None:
    remedy = Remedy.ISOLATE if fault in IN_ITS_ACTOR and not is_alone else Remedy.GIVE_UP
    assert remedy_for(fault, RETRY_LIMITS.of(fault) + 1, RETRY_LIMITS, is_alone=is_alone) == (remedy, 0.0)


@pytest.mark.parametrize("fault", Fault)
def test_the_error_of_a_lost_trajectory_names_the_fault_and_a_setting_if_there_is_one(fault: Fault) -> None:
    message = str(lost("desk/0", fault, 3))
    assert message.startswith(f"trajectory desk/0: {fault} 3 times without progress in between; resume the run")
    assert ("cluster.actor_restarts" in message) == (fault is Fault.CRASH)


@pytest.mark.parametrize(("is_alone", "remedy"), [(False, Remedy.ISOLATE), (True, Remedy.GIVE_UP)])
def test_a_budget_of_zero_allows_no_restart_of_the_actor(is_alone: bool, remedy: Remedy) -> None:
    assert remedy_for(Fault.CRASH, 1, RetryLimits(crashes=0), is_alone=is_alone) == (remedy, 0.0)
