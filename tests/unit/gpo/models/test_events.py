from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from gpo.cache.store import Missing
from gpo.errors import BudgetExhausted, ModelRefused, ModelUnavailable, RefusalReason
from gpo.limits.gate import Gate
from gpo.limits.limiter import LocalLimiter
from gpo.limits.messages import Budget, Pool, Spent
from gpo.models import events as observing
from gpo.models.cached import CachedModel
from gpo.models.events import Outcome
from gpo.models.limited import LimitedModel
from gpo.models.protocol import Completion, Embeddings, Message, Sampling, Usage
from gpo.models.retrying import RetryingModel, RetryPolicy
from gpo.runtime.context import current_caller

POOL = Pool("http://nowhere", "m", 1, 1, role="task", budget_name="a", has_budget=True, has_call_budget=True)
COST = Usage(requests=1, prompt_tokens=3, completion_tokens=2)


class RecordingObserver(observing.NullObserver):
    """Records events, without durations."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.has_started = asyncio.Event()

    def request_queued(self, pool: Pool, caller: str) -> None:
        self.lines.append(f"queued {pool.role} {caller}")

    def request_abandoned(self, pool: Pool, caller: str) -> None:
        self.lines.append("abandoned")

    def request_started(self, pool: Pool, caller: str, waited_s: float, *, is_retry: bool) -> None:
        assert waited_s >= 0
        self.has_started.set()
        self.lines.append("retried" if is_retry else "started")

    def request_ended(self, pool: Pool, caller: str, outcome: Outcome, duration_s: float, usage: Usage | None) -> None:
        assert duration_s >= 0
        self.lines.append(f"{outcome} {usage.prompt_tokens}" if usage else str(outcome))

    def call_failed(self, pool: Pool, caller: str, *, is_final: bool) -> None:
        self.lines.append("failed for good" if is_final else "failed")

    def cache_lookup(self, role: str, caller: str, *, is_hit: bool) -> None:
        self.lines.append(f"{'hit' if is_hit else 'miss'} for {role} {caller}")


@pytest.fixture
def observed() -> Iterator[RecordingObserver]:
    observed = RecordingObserver()
    observing.install(observed)
    token = current_caller.set("triage/0")
    yield observed
    current_caller.reset(token)
    observing.install(observing.NullObserver())


async def _gate(calls: int = 100) -> Gate:
    limiter = LocalLimiter()
    await limiter.open_budget("a", Budget(calls=calls), Spent(calls=1))
    return Gate(limiter, POOL)


MESSAGES: list[Message] = [{"role": "user", "content": "?"}]


class ScriptedModel:
    """Replies and fails in a given order."""

    def __init__(self, *results: Exception | str) -> None:
        self._results = list(results)

    async def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        await asyncio.sleep(0)
        return Completion(self._next(), COST)

    async def embed_batch(self, texts: Sequence[str]) -> Embeddings:
        self._next()
        return Embeddings([[1.0] for _ in texts], COST)

    def _next(self) -> str:
        result = self._results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result


def _model(gate: Gate, *results: Exception | str) -> RetryingModel:
    return RetryingModel(LimitedModel(ScriptedModel(*results), gate), RetryPolicy(3, max_backoff_s=0.001), gate)


async def _complete(gate: Gate, *results: Exception | str) -> None:
    await _model(gate, *results).complete(MESSAGES, Sampling())


@pytest.mark.parametrize("embeds", [False, True])
async def test_a_call_emits_events_for_each_request(embeds: bool, observed: RecordingObserver) -> None:
    model = _model(await _gate(), ModelUnavailable("busy", too_many=True), ModelUnavailable("500"), "reply")
    reply = await (model.embed_batch(["?"]) if embeds else model.complete(MESSAGES, Sampling()))
    assert reply.usage == replace(COST, retries=2)
    assert observed.lines == [
        "queued task triage/0", "started", "too_many",
        "queued task triage/0", "retried", "unavailable",
        "queued task triage/0", "retried", "answered 3",
    ]  # fmt: skip


async def test_a_failed_call_emits_one_failure(observed: RecordingObserver) -> None:
    with pytest.raises(ModelUnavailable):
        await _complete(await _gate(), *[ModelUnavailable("500")] * 3)
    assert observed.lines.count("failed") == 1
    assert observed.lines.count("unavailable") == 3
    observed.lines.clear()
    with pytest.raises(ModelRefused):
        await _complete(await _gate(), ModelRefused("too long", RefusalReason.REQUEST))
    assert observed.lines == ["queued task triage/0", "started", "refused", "failed for good"]


async def test_cancelled_calls_are_abandoned_or_cancelled_requests(observed: RecordingObserver) -> None:
    gate = await _gate()

    class HangingModel(ScriptedModel):
        async def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
            await asyncio.Event().wait()
            raise AssertionError

    model = LimitedModel(HangingModel(), gate)
    first, second = (asyncio.create_task(model.complete(MESSAGES, Sampling())) for _ in range(2))
    async with asyncio.timeout(60):
        await observed.has_started.wait()
    second.cancel()
    first.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    assert observed.lines.count("queued task triage/0") == 2
    assert sorted(observed.lines[2:]) == ["abandoned", "cancelled", "started"]


async def test_a_request_without_budget_is_abandoned(observed: RecordingObserver) -> None:
    with pytest.raises(BudgetExhausted):
        await _complete(await _gate(calls=1), "reply")
    assert observed.lines == ["queued task triage/0", "abandoned"]


class _Store:
    def __init__(self) -> None:
        self.kept: dict[bytes, Completion] = {}

    async def find(self, key: bytes) -> Completion | Missing:
        return self.kept.get(key, Missing.CLAIMED)

    async def put(self, key: bytes, completion: Completion) -> None:
        self.kept[key] = completion

    async def release(self, key: bytes) -> None: ...


async def test_the_cache_emits_hits_and_misses(observed: RecordingObserver) -> None:
    model = CachedModel(ScriptedModel("yes"), _Store(), {"model": "m"}, "task")
    await asyncio.gather(*(model.complete(MESSAGES, Sampling(temperature=0)) for _ in range(2)))
    await model.complete(MESSAGES, Sampling(temperature=0))
    assert observed.lines == ["miss for task triage/0", "hit for task triage/0", "hit for task triage/0"]
