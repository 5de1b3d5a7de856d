from __future__ import annotations

import pytest

from gpo.acceptance import Acceptance, BestOfStep, StrictImprovement
from gpo.testing.contracts import AcceptanceContract
from gpo.testing.samples import candidate, trajectory


class TestBestOfStep(AcceptanceContract):
    def make(self) -> Acceptance:
        return BestOfStep()


class TestStrictImprovement(AcceptanceContract):
    def make(self) -> Acceptance:
        return StrictImprovement()


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
