from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

import pytest

from gpo.errors import ModelUnavailable
from gpo.limits.gate import Gate
from gpo.limits.limiter import LocalLimiter
from gpo.limits.messages import Pool
from gpo.models import retrying
from gpo.models.protocol import Completion, Embeddings, Message, Sampling, Usage
from gpo.models.retrying import RetryingModel, RetryPolicy

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


class AwayAtFirst:
    """An endpoint that does not run for the first requests."""

    def __init__(self, failures: int) -> None:
        self.failures = failures

    async def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        self.failures -= 1
        if self.failures >= 0:
            raise AWAY
        return Completion("yes", Usage())

    async def embed_batch(self, texts: Sequence[str]) -> Embeddings:
        raise NotImplementedError


@pytest.mark.parametrize(("say_after_s", "is_said"), [(0.0, True), (60.0, False)])
async def test_a_long_wait_for_an_endpoint_is_logged_and_a_short_one_is_not(
    say_after_s: float, is_said: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(retrying, "SAY_AFTER_S", say_after_s)
    monkeypatch.setattr(retrying, "_announced", {})
    model = RetryingModel(AwayAtFirst(8), RetryPolicy(max_backoff_s=0.01), Gate(LocalLimiter(), Pool("url", "m", 1, 1)))
    await asyncio.gather(*(model.complete([], Sampling()) for _ in range(4)))
    said = [record.message for record in caplog.records]
    assert bool(said) is is_said
    assert all(message == "waiting for no connection (since 0 s, next try in 0 s)" for message in said)


async def test_a_wait_is_logged_again_only_after_a_while(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(retrying, "_announced", {})
    for _ in range(3):
        retrying._announce(Pool("url", "m", 1, 1), AWAY, 6.0, 3.0)
    retrying._announce(Pool("url", "another", 1, 1), AWAY, 6.0, 3.0)
    assert [record.message for record in caplog.records] == [
        "waiting for no connection (since 6 s, next try in 3 s)"
    ] * 2


async def test_the_limiter_knows_a_long_wait_while_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpo.limits.gate._BUSY_S", 0.01)
    limiter = LocalLimiter()
    gate = Gate(limiter, Pool("url", "m", 1, 1, budget_name="run"))

    async def says(pattern: str) -> None:
        async with asyncio.timeout(60):
            while not re.fullmatch(pattern, str(await limiter.longest_wait("run"))):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await limiter.longest_wait("another run") is None

    def calls() -> list[asyncio.Task[Completion]]:
        model = RetryingModel(AwayAtFirst(1), RetryPolicy(), gate)
        return [asyncio.create_task(model.complete([], Sampling())) for _ in range(2)]

    monkeypatch.setattr(RetryPolicy, "wait_s", lambda *_: 0.3)
    short = calls()
    while not all(call.done() for call in short):
        assert await limiter.longest_wait("run") is None
        await asyncio.sleep(0.01)

    monkeypatch.setattr(RetryPolicy, "wait_s", lambda *_: 3600.0)
    long = calls()
    await says(r"waiting for \d s: no connection")
    for call in long:
        call.cancel()
    await asyncio.gather(*long, return_exceptions=True)
    await says("None")
