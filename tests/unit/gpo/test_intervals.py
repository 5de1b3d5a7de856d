"""Intervals of scores: known values, ends of the scale, and how often they contain the true mean."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpo.intervals import Part, interval, interval_of_mean, paired_difference, wilson
from gpo.score import Partial, Score


def test_wilson_gives_the_published_values():
    # Newcombe (1998), table I: 81 of 263 and 15 of 148, at 95 %.
    assert wilson(81, 263, 0.95) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148, 0.95) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20, 0.95) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_only_right_answers_leave_room_for_wrong_ones():
    assert interval(Score((1.0,) * 24)) == pytest.approx((0.8987, 1), abs=1e-4)
    assert interval(Score((0.0,) * 24)) == pytest.approx((0, 0.1013), abs=1e-4)


def test_graded_values_that_are_equal_have_an_interval_with_a_width():
    low, high = interval(Score((0.7,) * 24))
    assert 0.5 < low < 0.7 < high < 0.9


def test_only_scored_examples_count():
    assert interval(Score((1.0, None, 0.0, None, 1.0))) == wilson(2, 3)


@pytest.mark.parametrize("values", [(), (None, None)])
def test_without_scored_examples_there_is_no_interval(values):
    assert all(isnan(end) for end in interval(Score(values)))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20).map(tuple))
def test_the_interval_contains_the_mean_and_has_a_width(values):
    score = Score(values)
    low, high = interval(score)
    assert 0 <= low < high <= 1
    assert low <= score.mean + 1e-9
    assert high >= score.mean - 1e-9


def test_the_mean_of_two_tasks_is_known_better_than_each():
    right, mixed = [1.0] * 30, [1.0, 0.0] * 15
    low, high = interval_of_mean([Part(right, 0.5), Part(mixed, 0.5)])
    assert low < 0.75 < high
    assert high - low < wilson(15, 30)[1] - wilson(15, 30)[0]


def test_a_standard_error_with_few_degrees_of_freedom_widens_the_interval():
    values = [1.0, 0.0] * 15
    widths = [
        high - low
        for low, high in (
            interval_of_mean([Part(values, stderr=stderr, degrees=degrees)])
            for stderr, degrees in ((0.0, 1), (0.05, 20), (0.1, 20), (0.1, 1))
        )
    ]
    assert widths == sorted(widths)
    assert widths[-1] > 1.2 * widths[-2]


@pytest.mark.parametrize(("num_tasks", "num_seeds", "n"), [(1, 3, 24), (2, 2, 24), (4, 3, 24), (4, 2, 100)])
def test_the_interval_over_tasks_and_seeds_contains_the_true_mean(num_tasks, num_seeds, n):
    """Tasks, seeds and examples differ in difficulty; the mean is over new seeds and new examples of the same tasks."""
    random = np.random.default_rng(17)
    tasks = 1 + random.normal(0, 1, (num_tasks, 1, 1))

    def chances(num_seeds, n):
        seeds = random.normal(0, 0.5, (num_tasks, num_seeds, 1))
        return 1 / (1 + np.exp(-(tasks + seeds + random.normal(0, 1, (num_tasks, 1, n)))))

    true = chances(2_000, 500).mean()
    inside = 0
    for _ in range(500):
        chance = chances(num_seeds, n)
        values = (random.random(chance.shape) < chance) * 1.0
        errors = values.mean(2).std(1, ddof=1) / num_seeds**0.5
        low, high = interval_of_mean(
            [
                Part(task.mean(0).tolist(), 1 / num_tasks, float(error), num_seeds - 1)
                for task, error in zip(values, errors, strict=True)
            ]
        )
        inside += low <= true <= high
    assert 0.85 <= inside / 500 <= 0.97


def test_mcnemars_test_of_right_and_wrong_answers_is_exact():
    after, before = Score((1.0,) * 9 + (0.0, 1.0, 0.0)), Score((0.0,) * 9 + (1.0, 1.0, 0.0))
    difference = paired_difference(after, before)
    assert (difference.num_better, difference.num_worse, difference.num_examples) == (9, 1, 12)
    assert difference.mean == pytest.approx(8 / 12)
    assert difference.p_value == pytest.approx(2 * (1 + 10) / 2**10)
    reverse = paired_difference(before, after)
    assert (reverse.mean, reverse.p_value) == (pytest.approx(-8 / 12), difference.p_value)
    assert reverse.interval == pytest.approx((-difference.interval[1], -difference.interval[0]))


def test_graded_scores_are_compared_by_flipping_signs():
    """Of the 2^4 signs of 0.1, 0.2, 0.3 and 0.4, all and none give a sum as far from 0 as theirs."""
    after, before = Score((0.5, 0.6, 0.7, 0.8)), Score((0.4,) * 4)
    difference = paired_difference(after, before)
    assert difference.p_value == pytest.approx(2 / 16, abs=0.01)
    assert difference == paired_difference(after, before)


def test_only_examples_that_are_scored_for_both_are_compared():
    difference = paired_difference(Score((1.0, None, 1.0, 0.0)), Score((0.0, 0.0, None, 0.0)))
    assert (difference.mean, difference.num_examples) == (0.5, 2)
    assert paired_difference(Score((None, 1.0)), Score((1.0, None))) is None


def test_equal_scores_leave_room_for_a_difference():
    difference = paired_difference(Score((1.0, 0.0) * 12), Score((1.0, 0.0) * 12))
    assert (difference.mean, difference.p_value) == (0.0, 1.0)
    low, high = difference.interval
    assert -0.15 < low < -0.05
    assert high == -low


@pytest.mark.parametrize("n", [10, 24, 100])
@pytest.mark.parametrize("kind", ["right and wrong", "graded"])
def test_chance_alone_is_rarely_called_a_difference_and_the_interval_contains_the_true_one(kind, n):
    random = np.random.default_rng(17)

    def draw():
        if kind == "graded":
            return random.beta(4, 2, n)
        return (random.random(n) < 0.7) * 1.0

    found = [paired_difference(Score(tuple(draw())), Score(tuple(draw()))) for _ in range(400)]
    assert sum(one.p_value < 0.05 for one in found) <= 0.08 * 400
    assert sum(one.interval[0] <= 0 <= one.interval[1] for one in found) >= 0.85 * 400


def coverage(draw, mean: float, n: int) -> float:
    """How often the interval of ``n`` values contains their true mean."""
    inside = [low <= mean <= high for low, high in (interval(Score(tuple(draw(n).tolist()))) for _ in range(2_000))]
    return float(np.mean(inside))


@pytest.mark.parametrize("n", [10, 24, 40, 100])
@pytest.mark.parametrize("shape", [(0.5, 0.5), (1, 1), (2, 2), (5, 1), (1, 9), (8, 2), (0.5, 2), (2, 0.3)], ids=str)
def test_the_interval_of_graded_values_contains_the_true_mean_in_85_to_95_percent(shape, n):
    random = np.random.default_rng(17)
    a, b = shape
    assert 0.85 <= coverage(lambda size: random.beta(a, b, size), a / (a + b), n) <= 0.95


@pytest.mark.parametrize("n", [10, 24, 40, 100])
@pytest.mark.parametrize("share", [0.5, 0.6, 0.7, 0.8, 0.9])
def test_the_interval_of_shares_contains_the_true_share_on_average(share, n):
    """A count is a whole number, so the coverage of a share can differ by some points from the level."""
    random = np.random.default_rng(17)
    assert 0.83 <= coverage(lambda size: (random.random(size) < share) * 1.0, share, n) <= 0.97


@pytest.mark.parametrize(
    ("mean", "stderr", "ends"),
    [(0.8, 0.05, (0.69, 0.88)), (1.0, 0.023, (0.9, 1.0)), (0.0, 0.023, (0.0, 0.1)), (0.5, 0.0, (0.42, 0.58))],
)
def test_an_estimate_has_the_interval_of_as_many_examples_as_give_its_error(
    mean: float, stderr: float, ends: tuple[float, float]
) -> None:
    """The answers behind the estimate do not count themselves, and all of ``val`` is a sample, too."""
    values = (1.0,) * 5 + (None,) * 95
    assert interval(Score(values, Partial(95, mean, stderr))) == pytest.approx(ends, abs=0.02)
