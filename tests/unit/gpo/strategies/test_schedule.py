from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpo.strategies.schedule import CosineSchedule, FixedSchedule, LinearSchedule, NoBound, StepSizeSchedule
from gpo.testing.contracts import ScheduleContract

Decay = type[LinearSchedule] | type[CosineSchedule]
decays = st.sampled_from([LinearSchedule, CosineSchedule])
sizes = st.integers(min_value=1, max_value=300)
warmups = st.integers(min_value=0, max_value=20)
# Steps after the warm-up; with a single one the schedule is at both of its ends at once.
lengths = st.integers(min_value=2, max_value=60)


class TestCosine(ScheduleContract):
    largest = 50

    def make(self) -> StepSizeSchedule:
        return CosineSchedule(initial=50, final=10, num_steps=12, warmup_steps=3)


class TestLinear(ScheduleContract):
    largest = 50

    def make(self) -> StepSizeSchedule:
        return LinearSchedule(initial=50, final=0, num_steps=12)


class TestFixed(ScheduleContract):
    largest = 7

    def make(self) -> StepSizeSchedule:
        return FixedSchedule(size=7, warmup_steps=4)


class TestNoBound(ScheduleContract):
    largest = None

    def make(self) -> StepSizeSchedule:
        return NoBound()


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (CosineSchedule(initial=50, final=10, num_steps=5), [50, 44, 30, 16, 10]),
        (LinearSchedule(initial=50, final=10, num_steps=5), [50, 40, 30, 20, 10]),
        (FixedSchedule(size=20), [20, 20, 20, 20, 20]),
        (CosineSchedule(initial=40, final=10, num_steps=6, warmup_steps=3), [10, 20, 30, 40, 25, 10]),
        (FixedSchedule(size=9, warmup_steps=2), [3, 6, 9, 9, 9]),
        (LinearSchedule(initial=3, final=0, num_steps=4), [3, 2, 1, 1]),
        (CosineSchedule(initial=50, final=10, num_steps=1), [50]),
    ],
)
def test_known_values(schedule: StepSizeSchedule, expected: list[int]) -> None:
    assert [schedule(step) for step in range(len(expected))] == expected


@given(decays, sizes, sizes, lengths, warmups)
def test_a_schedule_rises_in_the_warm_up_and_falls_after_it(
    decay: Decay, one: int, other: int, length: int, warmup: int
) -> None:
    initial, final = max(one, other), min(one, other)
    schedule = decay(initial=initial, final=final, num_steps=warmup + length, warmup_steps=warmup)
    values = [schedule(step) for step in range(warmup + length)]
    assert all(before <= after for before, after in pairwise(values[: warmup + 1]))
    assert all(before >= after for before, after in pairwise(values[warmup:]))
    assert all(1 <= value <= initial for value in values)
