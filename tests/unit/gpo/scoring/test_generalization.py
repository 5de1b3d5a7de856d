from __future__ import annotations

from random import Random
from statistics import fmean

from gpo.score import Score
from gpo.scoring.generalization import expected_of_best
from gpo.testing.samples import candidate, trajectory
from gpo.trajectory import Trajectory

SIZE, CANDIDATES = 24, 24


def search(seed: int, quality: float) -> Trajectory:
    """Prompts that are equally good, and right about different examples."""
    draw = Random(f"{seed}/{quality}")

    def values() -> list[float]:
        return [float(draw.random() < quality) for _ in range(SIZE)]

    others = [candidate(f"prompt {index}", *values()) for index in range(CANDIDATES)]
    return trajectory(candidate("start", *values()), others)


def test_the_luck_of_the_best_of_many_is_taken_away() -> None:
    searches = [search(seed, 0.6) for seed in range(40)]
    lucky = fmean(one.best.score.mean for one in searches)
    expected = fmean(expected_of_best(one).mean for one in searches)
    assert lucky > 0.76
    assert 0.57 < expected < 0.70


def test_intervals_contain_the_true_score_as_often_as_they_say_or_more() -> None:
    known = [(expected_of_best(search(seed, quality)), quality) for seed in range(25) for quality in (0.3, 0.6, 0.9)]
    covered = fmean(one.low <= quality <= one.high for one, quality in known)
    assert covered >= 0.85
    assert fmean(one.high - one.low for one, _ in known) < 0.35


def test_one_prompt_and_equal_answers_give_an_interval_with_a_width() -> None:
    for value in (0.0, 1.0):
        expected = expected_of_best(Trajectory(candidate("start", *[value] * SIZE)))
        assert 0 <= expected.low < expected.mean < expected.high <= 1
        assert abs(expected.mean - value) < 0.1


def test_a_real_difference_stays() -> None:
    draw = Random(1)
    good = [float(draw.random() < 0.95) for _ in range(100)]
    poor = [[float(draw.random() < 0.3) for _ in range(100)] for _ in range(8)]
    known = trajectory(candidate("start", *poor[0]), [candidate(f"{i}", *row) for i, row in enumerate([good, *poor])])
    assert known.best.score == Score(tuple(good))
    assert expected_of_best(known).mean > 0.85
