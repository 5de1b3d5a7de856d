from __future__ import annotations

import pytest

from actors.failure_policy import (
    AskAgain,
    Budgets,
    EndRun,
    Fault,
    GiveUp,
    Isolate,
    RestartActor,
    on_error,
    on_fault,
)
from gpo.errors import (
    BudgetExhausted,
    CheckpointError,
    EvaluationError,
    ModelRefused,
    OutOfReach,
    Part,
    RefusalReason,
    StorageError,
    TrajectoryLost,
)

BUDGETS = Budgets(crashes=2, node_losses=5, no_contacts=3, evaluator=2, limiter=2)
IN_ITS_ACTOR = [Fault.CRASH, Fault.NODE_LOSS, Fault.NO_CONTACT]
OUTSIDE = [Fault.EVALUATOR, Fault.LIMITER]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OutOfReach(Part.EVALUATOR, "gone"), Fault.EVALUATOR),
        (OutOfReach(Part.LIMITER, "gone"), Fault.LIMITER),
        (ModelRefused("no", RefusalReason.KEY), EndRun),
        (ModelRefused("no", RefusalReason.MODEL), EndRun),
        (ModelRefused("no", RefusalReason.REQUEST), GiveUp),
        (BudgetExhausted("budget.calls"), EndRun),
        (StorageError("no space"), EndRun),
        (CheckpointError("damaged"), GiveUp),
        (EvaluationError("unscored"), GiveUp),
        (RuntimeError("a defect"), GiveUp),
    ],
    ids=str,
)
def test_an_error_is_a_fault_or_ends_its_trajectory_or_the_run(error: BaseException, expected: object) -> None:
    outcome = on_error(error)
    if isinstance(outcome, Fault):
        assert outcome is expected
    else:
        assert type(outcome) is expected
        assert outcome.error is error


@pytest.mark.parametrize(
    ("fault", "decisions"),
    [
        (Fault.CRASH, [RestartActor(0.0), RestartActor(2.0)]),
        (Fault.NODE_LOSS, [RestartActor(wait_s) for wait_s in (0.0, 2.0, 4.0, 8.0, 16.0)]),
        (Fault.NO_CONTACT, [AskAgain(1.0), AskAgain(2.0), AskAgain(4.0)]),
        (Fault.EVALUATOR, [AskAgain(1.0), AskAgain(2.0)]),
        (Fault.LIMITER, [AskAgain(1.0), AskAgain(2.0)]),
    ],
)
@pytest.mark.parametrize("is_alone", [True, False])
def test_within_the_budget_each_retry_waits_longer(
    fault: Fault, decisions: list[AskAgain | RestartActor], is_alone: bool
) -> None:
    assert [on_fault(fault, times, BUDGETS, is_alone=is_alone) for times in range(1, len(decisions) + 1)] == decisions
    assert len(decisions) == BUDGETS.of(fault)


@pytest.mark.parametrize("fault", IN_ITS_ACTOR)
def test_beyond_the_budget_a_trajectory_that_shares_its_actor_is_isolated(fault: Fault) -> None:
    assert on_fault(fault, BUDGETS.of(fault) + 1, BUDGETS, is_alone=False) == Isolate()


@pytest.mark.parametrize(
    ("fault", "is_alone"), [*((fault, True) for fault in Fault), *((fault, False) for fault in OUTSIDE)]
)
def test_beyond_the_budget_a_trajectory_is_lost_if_a_separate_actor_cannot_help(fault: Fault, is_alone: bool) -> None:
    times = BUDGETS.of(fault) + 1
    decision = on_fault(fault, times, BUDGETS, is_alone=is_alone, name="trajectory desk/0")
    assert isinstance(decision, GiveUp)
    assert isinstance(decision.error, TrajectoryLost)
    assert str(decision.error).startswith(f"trajectory desk/0: {fault} {times} times without progress in between; ")
    assert ("cluster.actor_restarts" in str(decision.error)) == (fault is Fault.CRASH)


def test_no_wait_is_longer_than_half_a_minute() -> None:
    assert on_fault(Fault.NODE_LOSS, 100, Budgets(node_losses=1000), is_alone=True) == RestartActor(30.0)


def test_a_budget_of_zero_allows_no_restart_of_the_shared_actor() -> None:
    assert on_fault(Fault.CRASH, 1, Budgets(crashes=0), is_alone=False) == Isolate()
    assert isinstance(on_fault(Fault.CRASH, 1, Budgets(crashes=0), is_alone=True), GiveUp)
