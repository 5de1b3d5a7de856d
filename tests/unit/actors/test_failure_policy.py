from __future__ import annotations

import pytest

from actors.failure_policy import (
    AskAgain,
    Budgets,
    Decision,
    EndRun,
    Fault,
    GiveUp,
    History,
    StartElsewhere,
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


def decisions(faults: list[Fault], history: History) -> tuple[list[Decision], History]:
    decided = []
    for fault in faults:
        decided.append(on_fault(fault, history, BUDGETS))
        history = history.after(fault)
    return decided, history


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
        (RuntimeError("a fault of ours"), GiveUp),
    ],
    ids=str,
)
def test_what_an_error_comes_to(error: BaseException, expected: object) -> None:
    comes_to = on_error(error)
    if isinstance(comes_to, Fault):
        assert comes_to is expected
    else:
        assert type(comes_to) is expected
        assert comes_to.error is error


def test_a_crash_is_made_up_for_at_once_and_a_crash_loop_ever_later() -> None:
    decided, _ = decisions([Fault.CRASH] * 2, History())
    assert decided == [StartElsewhere(0.0), StartElsewhere(2.0)]


@pytest.mark.parametrize("fault", IN_ITS_ACTOR)
def test_who_shares_an_actor_that_fails_too_often_is_tried_alone_with_new_budgets(fault: Fault) -> None:
    decided, spent = decisions([fault] * BUDGETS.of(fault), History())
    assert all(isinstance(decision, AskAgain) or decision.alone is False for decision in decided)  # type: ignore[union-attr]
    assert on_fault(fault, spent, BUDGETS) == StartElsewhere(0.0, alone=True)
    again, _ = decisions([fault] * BUDGETS.of(fault), spent.alone())
    assert again == decided


@pytest.mark.parametrize("fault", IN_ITS_ACTOR)
def test_who_fails_alone_too_often_is_lost(fault: Fault) -> None:
    _, spent = decisions([fault] * BUDGETS.of(fault), History(is_alone=True))
    decision = on_fault(fault, spent, BUDGETS, "trajectory desk/0")
    assert isinstance(decision, GiveUp)
    assert isinstance(decision.error, TrajectoryLost)
    assert f"trajectory desk/0: {fault} {BUDGETS.of(fault) + 1} times" in str(decision.error)


@pytest.mark.parametrize("fault", OUTSIDE)
@pytest.mark.parametrize("is_alone", [True, False])
def test_what_is_outside_of_the_actor_is_asked_again_and_no_better_elsewhere(fault: Fault, is_alone: bool) -> None:
    decided, spent = decisions([fault] * BUDGETS.of(fault), History(is_alone=is_alone))
    assert decided == [AskAgain(1.0), AskAgain(2.0)]
    assert isinstance(on_fault(fault, spent, BUDGETS), GiveUp)


def test_budgets_are_separate() -> None:
    _, history = decisions([Fault.CRASH] * 2 + [Fault.NODE_LOSS] * 5 + OUTSIDE * 2, History())
    for fault in Fault:
        spent = isinstance(on_fault(fault, history, BUDGETS), GiveUp) or on_fault(
            fault, history, BUDGETS
        ) == StartElsewhere(0.0, alone=True)
        assert spent == (fault is not Fault.NO_CONTACT)


def test_a_node_that_is_lost_takes_nothing_from_the_budget_of_crashes() -> None:
    _, history = decisions([Fault.NODE_LOSS] * 5, History())
    assert on_fault(Fault.CRASH, history, BUDGETS) == StartElsewhere(0.0)


def test_who_gets_on_has_every_budget_again() -> None:
    _, spent = decisions([Fault.CRASH] * 2, History(is_alone=True))
    assert on_fault(Fault.CRASH, spent.got_on(), BUDGETS) == StartElsewhere(0.0)
    assert spent.got_on().is_alone


def test_waits_have_an_end() -> None:
    many = Budgets(node_losses=1000)
    history = History()
    for _ in range(100):
        history = history.after(Fault.NODE_LOSS)
    assert on_fault(Fault.NODE_LOSS, history, many) == StartElsewhere(30.0)


def test_an_actor_that_shall_never_be_started_again_is_not() -> None:
    none = Budgets(crashes=0)
    assert on_fault(Fault.CRASH, History(), none) == StartElsewhere(0.0, alone=True)
    assert isinstance(on_fault(Fault.CRASH, History(is_alone=True), none), GiveUp)
