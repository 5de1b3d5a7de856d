from __future__ import annotations

import pytest

from actors.search import SearchKey
from cluster.results.averages import Family, alone, averages, families_of, family_spread
from gpo.checkpoint import Checkpoint
from gpo.data.example import Example
from gpo.data.task import Split, Task
from gpo.evaluation.evaluator import Evaluation
from gpo.evaluation.metrics import ExactScorer
from gpo.intervals import wilson
from gpo.models.protocol import Usage
from gpo.prompt import Prompt
from gpo.score import Score
from gpo.testing.samples import candidate, trajectory


def task(name: str, group: str = "", counts_as: str = "") -> Task:
    examples = dict.fromkeys(Split, (Example("?", ("!",)),))
    return Task(name, Prompt("p"), examples, ExactScorer(), group=group, counts_as=counts_as)


def end(val: float, test: float | None) -> Checkpoint:
    """A trajectory that started at 0 and ended at these scores."""
    search = trajectory(candidate("before", 0.0), [candidate("after", val)])
    tests = {} if test is None else {search.best.prompt.id: Evaluation(Score((test,)), Usage())}
    return Checkpoint(search, tests)


def test_tasks_that_count_as_one_are_averaged_first() -> None:
    tasks = [
        task("deduction_3", "B", "deduction"),
        task("deduction_5", "B", "deduction"),
        task("navigate", "B", "navigate"),
    ]
    (everything,) = families_of(tasks)
    assert everything.units == (("deduction_3", "deduction_5"), ("navigate",))
    assert everything.mean({"deduction_3": 0.2, "deduction_5": 0.4, "navigate": 0.9}) == pytest.approx(0.6)


def test_families_come_in_the_order_of_their_tasks_and_all_tasks_last() -> None:
    families = families_of([task("a", "X"), task("b", "Y"), task("c", "X"), task("d")])
    assert [(family.name, family.units) for family in families] == [
        ("X", (("a",), ("c",))),
        ("Y", (("b",),)),
        ("all tasks", (("a",), ("b",), ("c",), ("d",))),
    ]


def test_a_single_family_is_shown_once() -> None:
    assert [family.name for family in families_of([task("a", "X"), task("b", "X")])] == ["all tasks"]


def test_seeds_without_a_score_on_every_task_do_not_count() -> None:
    ends = {
        SearchKey("a", 0): end(0.5, 0.4), SearchKey("b", 0): end(0.7, 0.6),
        SearchKey("a", 1): end(0.9, 0.8), SearchKey("b", 1): end(0.9, None),
    }  # fmt: skip
    both = Family("both", (("a",), ("b",)))
    on_test = family_spread(both, ends, which="best", split="test")
    assert (on_test.by_seed, on_test.stderr) == ({0: pytest.approx(0.5)}, None)
    on_val = family_spread(both, ends, which="best", split="val")
    assert on_val.mean == pytest.approx((0.6 + 0.9) / 2)
    # The standard deviation of two values is their distance over √2, the standard error half their distance.
    assert on_val.stderr == pytest.approx(0.15)
    assert family_spread(alone("c"), ends, which="best", split="val") is None


def test_the_interval_of_a_mean_over_seeds_has_a_width_even_if_all_answers_are_right() -> None:
    right = trajectory(candidate("p", *[1.0] * 24))
    ends = {SearchKey(task, seed): Checkpoint(right, {}) for task in "ab" for seed in (0, 1)}
    spread = family_spread(Family("both", (("a",), ("b",))), ends, which="best", split="val")
    assert (spread.mean, spread.stderr) == (1.0, 0.0)
    assert spread.interval == pytest.approx(wilson(48, 48))


def test_seeds_that_differ_widen_the_interval() -> None:
    def interval(*shares: int) -> tuple[float, float]:
        searches = [trajectory(candidate("p", *[1.0] * share, *[0.0] * (20 - share))) for share in shares]
        ends = {SearchKey("a", seed): Checkpoint(search, {}) for seed, search in enumerate(searches)}
        return family_spread(alone("a"), ends, which="best", split="val").interval

    (low, high), (lower, higher) = interval(10, 10, 10), interval(5, 10, 15)
    assert lower < low < 0.5 < high < higher


def test_one_task_needs_no_average() -> None:
    ends = {SearchKey("a", 0): end(0.5, 0.4)}
    assert averages(families_of([task("a")]), ends) == []
    assert averages((), ends) == []
    (entry,) = averages(families_of([task("a"), task("b")]), ends)
    assert entry == {
        "family": "all tasks",
        "tasks": 2,
        "initial": {"val": None, "test": None},
        "best": {"val": None, "test": None},
    }
