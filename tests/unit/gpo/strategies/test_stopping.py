from __future__ import annotations

import pickle

import pytest

from gpo.prompt import Prompt
from gpo.score import Partial, Score
from gpo.strategies.stopping import StoppingRule, steps_without_improvement
from gpo.testing.samples import TRAJECTORIES, candidate, dropped, trajectory
from gpo.trajectory import Candidate

RIGHT, WRONG = 1.0, 0.0


def scored(text: str, right: int, of: int = 20) -> Candidate:
    """A prompt whose first answers are right."""
    return candidate(text, *[RIGHT] * right, *[WRONG] * (of - right))


@pytest.mark.parametrize("search", TRAJECTORIES.values(), ids=TRAJECTORIES.keys())
def test_without_conditions_a_search_never_stops(search) -> None:
    assert StoppingRule().reason(search) is None


@pytest.mark.parametrize("search", TRAJECTORIES.values(), ids=TRAJECTORIES.keys())
def test_the_decision_depends_on_the_trajectory_alone(search) -> None:
    rule = StoppingRule(target=0.2, patience=2)
    assert rule.reason(pickle.loads(pickle.dumps(search))) == rule.reason(search)  # noqa: S301


@pytest.mark.parametrize(
    ("values", "target", "reached"),
    [
        ((RIGHT,) * 40, 0.93, True),  # 40 of 40: the true score is at least 0.937 with 95 % confidence
        ((RIGHT,) * 40, 0.94, False),
        ((RIGHT,) * 100, 0.97, True),
        ((RIGHT,) * 20, 0.9, False),  # a mean of 1.0 from 20 examples is no proof of 0.9
        ((RIGHT,) * 36 + (WRONG,) * 4, 0.79, True),
        ((RIGHT,) * 36 + (WRONG,) * 4, 0.9, False),  # the mean is the target: half of the time it is too good
        ((RIGHT,) * 40 + (None,) * 60, 0.93, True),  # unscored examples count neither way
        ((None,) * 40, 0.01, False),
        ((0.8, 0.9) * 20, 0.8, True),  # graded values vary less
        ((0.8, 0.9) * 20, 0.85, False),
        ((0.9,), 0.5, False),
    ],
)
def test_the_target_must_be_reached_with_confidence(
    values: tuple[float | None, ...], target: float, *, reached: bool
) -> None:
    search = trajectory(candidate("first", *[WRONG] * len(values)), [candidate("best", *values)])
    reason = StoppingRule(target=target).reason(search)
    assert reason == (f"reached the target {target:g}" if reached else None)


def test_a_target_that_the_initial_prompt_reaches_ends_the_search_at_once() -> None:
    assert StoppingRule(target=0.8).reason(trajectory(scored("first", 40, of=40))) == "reached the target 0.8"


def test_only_an_improvement_beyond_one_standard_error_counts() -> None:
    first = scored("first", 10)
    # Two examples gained and one lost: a gain of 0.05 ± 0.09.
    doubtful = candidate("doubtful", *[WRONG], *[RIGHT] * 11, *[WRONG] * 8)
    clear = scored("clear", 14)
    assert steps_without_improvement(trajectory(first, [doubtful], [scored("worse", 3)])) == 2
    assert steps_without_improvement(trajectory(first, [doubtful], [clear])) == 0
    assert steps_without_improvement(trajectory(first, [clear], [doubtful], [])) == 2


@pytest.mark.parametrize("num_examples", range(2, 60))
def test_one_more_right_answer_is_no_improvement_beyond_the_error(num_examples: int) -> None:
    first, more = (scored(str(right), right, of=num_examples) for right in (num_examples - 2, num_examples - 1))
    assert steps_without_improvement(trajectory(first, [more])) == 1
    assert steps_without_improvement(trajectory(first, [scored("all", num_examples, of=num_examples)])) == 0


def test_small_improvements_count_together() -> None:
    def gained(text: str, gained: int, lost: int) -> Candidate:
        return candidate(text, *[WRONG] * lost, *[RIGHT] * (20 - lost + gained), *[WRONG] * (20 - gained))

    first = scored("first", 20, of=40)
    small = [gained("a", 2, 1), gained("b", 4, 1), gained("c", 5, 1)]
    counts = [steps_without_improvement(trajectory(first, *[[one] for one in small[:taken]])) for taken in (0, 1, 2, 3)]
    assert counts == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("patience", "reason"),
    [(1, "no improvement in 1 step"), (2, "no improvement in 2 steps"), (3, None)],
)
def test_patience_is_lost_after_so_many_steps(patience: int, reason: str | None) -> None:
    search = trajectory(scored("first", 10), [scored("better", 15)], [scored("worse", 9)], [scored("equal", 15)])
    assert StoppingRule(patience=patience).reason(search) == reason


def test_pairs_are_the_examples_that_are_scored_for_both() -> None:
    first = candidate("first", WRONG, WRONG, WRONG, None, None)
    better = candidate("better", RIGHT, RIGHT, None, None, WRONG)
    assert steps_without_improvement(trajectory(first, [better])) == 0
    # With fewer than two pairs there is no error, and the means decide.
    apart = candidate("apart", None, None, RIGHT, RIGHT, RIGHT)
    assert steps_without_improvement(trajectory(first, [apart])) == 0
    # Prompts that were dropped are never the best.
    assert steps_without_improvement(trajectory(candidate("first", 0.5), [dropped("dropped", 1.0)])) == 1


def test_each_condition_is_enough() -> None:
    search = trajectory(scored("first", 10, of=40), [scored("best", 40, of=40)], [scored("worse", 9, of=40)])
    assert StoppingRule(target=0.9, patience=5).reason(search) == "reached the target 0.9"
    assert StoppingRule(target=0.99, patience=1).reason(search) == "no improvement in 1 step"
    assert StoppingRule(target=0.99, patience=2).reason(search) is None


@pytest.mark.parametrize(("stderr", "count"), [(0.05, 0), (0.15, 1)])
def test_an_estimate_must_exceed_the_best_by_its_standard_error(stderr: float, count: int) -> None:
    """Its few answers are all right, which says less than the model's estimate."""
    values = (RIGHT,) * 5 + (None,) * 15
    estimated = Candidate(Prompt("better"), Score(values, Partial(15, 0.6, stderr)))
    assert steps_without_improvement(trajectory(scored("first", 10), [estimated])) == count
