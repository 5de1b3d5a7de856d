from __future__ import annotations

from math import isnan, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpo.score import Partial, Score

values = st.lists(st.none() | st.floats(0, 1), max_size=20).map(tuple)


def test_unscored_examples_count_neither_for_nor_against() -> None:
    score = Score((1.0, None, 0.0, None, 1.0))
    assert score.mean == pytest.approx(2 / 3)
    assert (score.num_examples, score.num_unscored, score.scored) == (5, 2, (1.0, 0.0, 1.0))


def test_the_standard_error_is_computed_from_the_sample() -> None:
    assert Score((1.0, 0.0, 1.0, 0.0)).stderr == pytest.approx(sqrt((1 / 3) / 4))


@pytest.mark.parametrize("values_E", [(), (None,), (None, None)])
def test_a_score_without_values_has_no_mean(values_E: tuple[None, ...]) -> None:
    assert isnan(Score(values_E).mean)


@given(values)
def test_the_mean_stays_in_range(values_E: tuple[float | None, ...]) -> None:
    score = Score(values_E)
    assert isnan(score.mean) == (not score.scored)
    assert not score.scored or 0 <= score.mean <= 1


def test_a_partial_score_has_an_estimate_and_counts_the_rest() -> None:
    score = Score((1.0, None, 0.0, 1.0, None, None), Partial(num_left_out=2, mean=0.4))
    assert (score.mean, score.mean_of_scored) == (0.4, pytest.approx(2 / 3))
    assert (score.num_examples, score.num_unscored) == (6, 1)
    assert score.stderr == Score((1.0, 0.0, 1.0)).stderr
