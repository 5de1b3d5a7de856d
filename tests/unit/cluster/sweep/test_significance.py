from __future__ import annotations

import pytest

from cluster.sweep.confirmation import paired_difference


def test_a_clear_difference_is_significant_and_says_by_how_much() -> None:
    found = paired_difference([0.6, 0.7, 0.65, 0.8, 0.75, 0.7], [0.5, 0.6, 0.5, 0.7, 0.7, 0.6], alpha=0.05)
    assert found.mean == pytest.approx(0.1)
    assert found.low < 0.1 < found.high
    assert found.p == pytest.approx(2 / 2**6)  # exact: no other signs are as extreme
    assert found.is_significant
    assert "the best trial is better than the paper's setting (+10.0 points" in found.statement(
        "the best trial", "the paper's setting"
    )


def test_who_loses_is_said_to_lose() -> None:
    found = paired_difference([0.5] * 8, [0.6, 0.61, 0.62, 0.63, 0.64, 0.65, 0.66, 0.67], alpha=0.05)
    assert found.is_significant
    assert "the paper is better than the winner" in found.statement("the winner", "the paper")


def test_what_swings_both_ways_cannot_be_told_apart() -> None:
    found = paired_difference([0.6, 0.5, 0.7, 0.4, 0.6, 0.5, 0.6], [0.5, 0.6, 0.6, 0.5, 0.6, 0.5, 0.6], alpha=0.05)
    assert not found.is_significant
    assert found.low < 0 < found.high
    assert "no significant difference" in found.statement("a", "b")


def test_too_few_pairs_are_said_to_be_too_few() -> None:
    found = paired_difference([0.9, 0.9, 0.9], [0.1, 0.1, 0.2], alpha=0.05)
    assert found.p == pytest.approx(0.25)
    assert "So few pairs cannot be significant: p is at least 0.25" in found.statement("a", "b")
    single = paired_difference([0.9], [0.1], alpha=0.05)
    assert (single.p, single.low, single.high) == (1.0, single.mean, single.mean)


def test_no_difference_at_all() -> None:
    found = paired_difference([0.5, 0.6], [0.5, 0.6], alpha=0.05)
    assert (found.mean, found.p, found.is_significant) == (0.0, 1.0, False)
