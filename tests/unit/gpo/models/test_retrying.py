from __future__ import annotations

import pytest

from gpo.errors import ModelUnavailable
from gpo.models.retrying import RetryPolicy

POLICY = RetryPolicy(max_attempts=3, patience_s=10.0, max_backoff_s=8.0)
BROKEN = ModelUnavailable("HTTP 500")
BUSY = ModelUnavailable("HTTP 429", too_many=True)
AWAY = ModelUnavailable("no connection", is_away=True)


def waits(*failures: ModelUnavailable, waited_s: float = 0.0) -> list[float]:
    return [POLICY.wait_s(failures, waited_s) or 0.0 for _ in range(200)]


@pytest.mark.parametrize(
    ("failures", "bound_s"),
    [([BROKEN], 0.5), ([BROKEN, BROKEN], 1.0), ([BUSY] * 4, 4.0), ([BUSY] * 99, 8.0), ([AWAY] * 99, 5.0)],
)
def test_the_wait_is_random_below_a_bound_that_doubles(failures: list[ModelUnavailable], bound_s: float) -> None:
    longest = max(waits(*failures))
    assert 0.8 * bound_s < longest <= bound_s


@pytest.mark.parametrize(
    ("retry_after_s", "shortest", "longest"), [(2.0, 2.0, 2.2), (3600.0, 8.0, 8.8), (0.0, 0.0, 0.5)]
)
def test_retry_after_is_kept_up_to_the_longest_backoff(retry_after_s: float, shortest: float, longest: float) -> None:
    found = waits(ModelUnavailable("HTTP 429", 0, retry_after_s, too_many=True))
    assert shortest <= min(found) <= max(found) <= longest
    assert len(set(found)) > 1, "requests that were refused together must not return together"


@pytest.mark.parametrize(
    ("failures", "waited_s", "gives_up"),
    [
        ([BROKEN] * 2, 99.0, False),
        ([BROKEN] * 3, 0.0, True),
        ([BUSY] * 99, 10.0, False),
        ([BUSY], 10.1, True),
        ([AWAY], 10.1, True),
        ([BROKEN, BUSY, BROKEN, AWAY], 9.0, False),
        ([BROKEN, BUSY, BROKEN, AWAY, BROKEN], 0.0, True),
    ],
)
def test_other_failures_are_bounded_by_number_and_a_busy_endpoint_by_time(
    failures: list[ModelUnavailable], waited_s: float, gives_up: bool
) -> None:
    assert (POLICY.wait_s(failures, waited_s) is None) is gives_up
