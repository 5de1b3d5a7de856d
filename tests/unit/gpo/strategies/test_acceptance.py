from __future__ import annotations

import pytest

from gpo.strategies.acceptance import Acceptance, BestOfStep, StrictImprovement, WithinError
from gpo.testing.contracts import AcceptanceContract
from gpo.testing.samples import candidate, trajectory


class TestBestOfStep(AcceptanceContract):
    def make(self) -> Acceptance:
        return BestOfStep()


class TestStrictImprovement(AcceptanceContract):
    def make(self) -> Acceptance:
        return StrictImprovement()


class TestWithinError(AcceptanceContract):
    def make(self) -> Acceptance:
        return WithinError()


@pytest.mark.parametrize(
    ("standard_errors", "new", "stays"),
    [
        (1.0, (1.0, 1.0, 0.0, 1.0), True),  # one of four lost: within one standard error
        (1.0, (0.0, 0.0, 1.0, 1.0), False),  # two of four lost: beyond it
        (3.0, (0.0, 0.0, 1.0, 1.0), True),
        (0.0, (1.0, 1.0, 0.0, 1.0), False),
        (1.0, (0.0, None, None, None), True),  # one pair has no standard error
        (1.0, (0.0, 0.0, 0.0, 0.0), False),
    ],
)
def test_a_measurable_loss_returns_to_the_best(
    standard_errors: float, new: tuple[float | None, ...], stays: bool
) -> None:
    best = candidate("best", 1.0, 1.0, 1.0, 1.0)
    search = trajectory(candidate("first", 0.0, 0.0, 0.0, 0.0), [best], [candidate("current", 1.0, 1.0, 1.0, 0.0)])
    fresh = candidate("new", *new)
    assert WithinError(standard_errors).choose(search, [fresh]) is (fresh if stays else best)


@pytest.mark.parametrize(
    ("acceptance", "means", "chosen"),
    [
        (BestOfStep(), [0.1, 0.3, 0.2], 1),
        (BestOfStep(), [0.1, 0.9, 0.9], 1),
        (BestOfStep(), [0.5], 0),
        (StrictImprovement(), [0.1, 0.3, 0.2], None),
        (StrictImprovement(), [0.5, 0.5], None),
        (StrictImprovement(), [0.4, 0.9, 0.9], 1),
    ],
)
def test_from_a_current_mean_of_one_half(acceptance: Acceptance, means: list[float], chosen: int | None) -> None:
    search = trajectory(candidate("current", 0.5))
    candidates = [candidate(f"new {index}", mean) for index, mean in enumerate(means)]
    expected = search.current if chosen is None else candidates[chosen]
    assert acceptance.choose(search, candidates) is expected
