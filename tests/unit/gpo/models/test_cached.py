from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpo.cache.sqlite import SqliteStore
from gpo.errors import ModelError, ModelRefused, ModelUnavailable, RefusalReason
from gpo.models.cached import CachedModel, completion_key, is_repeatable
from gpo.models.protocol import Completion, Message, Sampling, Usage, billed
from gpo.testing.fakes import FakeModel, Reply

IDENTITY = {"base_url": "http://127.0.0.1:9/v1", "model": "task-model"}
GREEDY = Sampling(temperature=0.0)
MESSAGES: list[Message] = [{"role": "user", "content": "What is it?"}]


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    return SqliteStore(tmp_path / "completions.sqlite")


def cached(store: SqliteStore, reply: Callable[..., Reply]) -> tuple[CachedModel, FakeModel]:
    model = FakeModel(reply)
    return CachedModel(model, store, IDENTITY), model


class Gate:
    """A model whose requests end when it is opened."""

    def __init__(self, reply: str | Exception = "reply") -> None:
        self.open, self.reply = asyncio.Event(), reply
        self.begun = self.cancelled = 0

    async def complete(self, messages: Any, sampling: Sampling) -> Completion:
        self.begun += 1
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(self.reply, Exception):
            raise self.reply
        return Completion(self.reply, Usage(requests=1, retries=2, prompt_tokens=5))

    async def until_begun(self, count: int = 1) -> None:
        async with asyncio.timeout(60):
            while self.begun < count:  # noqa: ASYNC110  # the simplest
                await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(temperature=0.0), True),
        (Sampling(temperature=1.0), False),
        (Sampling(), False),
        (Sampling(seed=0), True),
        (Sampling(temperature=1.0, seed=3), True),
    ],
)
async def test_repeatable_requests_are_sent_once(sampling: Sampling, expected: bool, store: SqliteStore) -> None:
    assert is_repeatable(sampling) is expected
    model, inner = cached(store, lambda *_: "reply")
    replies = [await model.complete(MESSAGES, sampling) for _ in range(3)]
    assert [reply.text for reply in replies] == ["reply"] * 3
    assert len(inner.calls) == (1 if expected else 3)


HIT = Usage(cached=1, cached_tokens=5, cached_usd=0.1)


@pytest.mark.parametrize(
    ("text", "truncated"), [("", True), ("reply", False), ("reply", True), ("\ud83d", False), ("\ud83d", True)]
)
async def test_a_hit_is_the_stored_reply_and_costs_nothing(text: str, truncated: bool, store: SqliteStore) -> None:
    bought = Completion(
        text, Usage(requests=1, retries=1, prompt_tokens=3, completion_tokens=2, cost_usd=0.1), truncated
    )
    model, inner = cached(store, lambda *_: bought)
    assert await model.complete(MESSAGES, GREEDY) == bought
    assert await model.complete(MESSAGES, GREEDY) == Completion(text, HIT, truncated)
    other, unasked = cached(store, lambda *_: "another")
    assert await other.complete(MESSAGES, GREEDY) == Completion(text, HIT, truncated)
    assert (len(inner.calls), len(unasked.calls)) == (1, 0)


async def test_an_empty_reply_that_was_not_cut_off_is_requested_again(store: SqliteStore) -> None:
    model, inner = cached(store, lambda *_: Completion(" ", Usage(requests=1)))
    for _ in range(2):
        await model.complete(MESSAGES, GREEDY)
    assert len(inner.calls) == 2


async def test_simultaneous_equal_calls_share_one_request(store: SqliteStore) -> None:
    gate = Gate()
    model = CachedModel(gate, store, IDENTITY)
    calls = [asyncio.create_task(model.complete(MESSAGES, GREEDY)) for _ in range(20)]
    await gate.until_begun()
    gate.open.set()
    replies = await asyncio.gather(*calls)
    assert gate.begun == 1
    assert sum((reply.usage for reply in replies), start=Usage()) == Usage(1, 19, 2, 0, 5, cached_tokens=19 * 5)
    assert {reply.text for reply in replies} == {"reply"}


async def test_simultaneous_calls_of_two_models_share_one_request(store: SqliteStore) -> None:
    gate = Gate()
    models = [CachedModel(gate, store, IDENTITY) for _ in range(2)]
    calls = [asyncio.create_task(model.complete(MESSAGES, GREEDY)) for model in models]
    await gate.until_begun()
    await asyncio.sleep(0.1)
    gate.open.set()
    replies = await asyncio.gather(*calls)
    assert gate.begun == 1
    assert sorted(reply.usage.cached for reply in replies) == [0, 1]


@pytest.mark.parametrize(
    "failure",
    [
        ModelUnavailable("HTTP 503", 5, billed=Usage(prompt_tokens=7)),
        ModelRefused("filtered", RefusalReason.FILTER, "m", "http://x", billed=Usage(prompt_tokens=7)),
    ],
)
async def test_a_failure_is_raised_in_all_calls_and_not_stored(failure: ModelError, store: SqliteStore) -> None:
    gate = Gate(failure)
    model = CachedModel(gate, store, IDENTITY)
    calls = [asyncio.create_task(model.complete(MESSAGES, GREEDY)) for _ in range(3)]
    await gate.until_begun()
    gate.open.set()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert gate.begun == 1
    assert {(type(outcome), str(outcome)) for outcome in outcomes} == {(type(failure), str(failure))}
    assert [billed(outcome) for outcome in outcomes if isinstance(outcome, ModelError)].count(None) == 2
    if isinstance(failure, ModelUnavailable):
        assert sum(outcome.retries for outcome in outcomes if isinstance(outcome, ModelUnavailable)) == 5
    gate.reply = "reply"
    assert (await model.complete(MESSAGES, GREEDY)).text == "reply"
    assert gate.begun == 2


async def test_a_cancelled_call_does_not_end_the_request_of_others(store: SqliteStore) -> None:
    gate = Gate()
    model = CachedModel(gate, store, IDENTITY)
    first, second, third = (asyncio.create_task(model.complete(MESSAGES, GREEDY)) for _ in range(3))
    await gate.until_begun()
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled()
    gate.open.set()
    replies = await asyncio.gather(second, third)
    assert (gate.begun, gate.cancelled) == (1, 0)
    assert sum((reply.usage for reply in replies), start=Usage()) == Usage(1, 1, 2, 0, 5, cached_tokens=5)


async def test_the_request_is_cancelled_when_no_call_waits_for_it(store: SqliteStore) -> None:
    gate = Gate()
    model = CachedModel(gate, store, IDENTITY)
    calls = [asyncio.create_task(model.complete(MESSAGES, GREEDY)) for _ in range(3)]
    await gate.until_begun()
    for call in calls:
        call.cancel()
    # The next call sends a new request at once.
    again = asyncio.create_task(model.complete(MESSAGES, GREEDY))
    await asyncio.wait(calls)
    gate.open.set()
    assert (await again).text == "reply"
    assert (gate.begun, gate.cancelled) == (2, 1)


async def test_it_pickles_without_requests_in_flight(store: SqliteStore) -> None:
    model, _ = cached(store, lambda *_: "reply")
    await model.complete(MESSAGES, GREEDY)
    there = pickle.loads(pickle.dumps(CachedModel(Sink(), store, IDENTITY)))  # noqa: S301  # our own
    assert (await there.complete(MESSAGES, GREEDY)).usage.cached == 1
    assert pickle.loads(pickle.dumps(there)) == there  # noqa: S301  # our own


class Sink:
    """A model that must not be called."""

    async def complete(self, messages: Any, sampling: Sampling) -> Completion:
        raise AssertionError("asked")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sink)


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)
_samplings = st.builds(
    Sampling,
    temperature=st.none() | st.sampled_from([0.0, 0.5, 1.0]),
    max_tokens=st.none() | st.integers(1, 3),
    top_p=st.none() | st.sampled_from([0.5, 1.0]),
    stop=st.lists(st.text(max_size=2), max_size=2).map(tuple),
    extra=st.dictionaries(st.sampled_from(["min_p", "top_k", "é"]), _json, max_size=2),
    seed=st.none() | st.integers(0, 3),
)
_messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user"]), "content": st.text(max_size=4)}), max_size=3
)


def _seen(messages: Any, sampling: Sampling) -> str:
    """What a key must distinguish: 1, 1.0 and True are equal in Python, but perhaps not for an endpoint."""
    extra = repr(_sorted(sampling.extra))
    return repr((messages, extra, [getattr(sampling, one.name) for one in fields(sampling) if one.name != "extra"]))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return sorted((name, _sorted(one)) for name, one in value.items())
    return [_sorted(one) for one in value] if isinstance(value, list) else value


@given(_messages, _messages, _samplings, _samplings)
def test_keys_are_equal_only_for_equal_requests(one: Any, other: Any, first: Sampling, second: Sampling) -> None:
    is_same = _seen(one, first) == _seen(other, second)
    assert (completion_key(IDENTITY, one, first) == completion_key(IDENTITY, other, second)) is is_same
    assert (completion_key(IDENTITY, one, first) == completion_key(IDENTITY, one, second)) is (
        _seen(one, first) == _seen(one, second)
    )


@given(_messages, _samplings)
def test_the_order_of_mappings_does_not_change_the_key(messages: Any, sampling: Sampling) -> None:
    turned = [dict(reversed(message.items())) for message in messages]
    extra = dict(reversed(list(sampling.extra.items())))
    identity = dict(reversed(list(IDENTITY.items())))
    assert completion_key(identity, turned, replace(sampling, extra=extra)) == completion_key(  # type: ignore[arg-type]
        IDENTITY, messages, sampling
    )


@given(_messages, _samplings)
def test_every_field_of_the_sampling_changes_the_key(messages: Any, sampling: Sampling) -> None:
    changes = {
        "temperature": 1.5, "max_tokens": 77, "top_p": 0.25, "stop": ("STOP",), "extra": {"other": 1}, "seed": 99,
        "limit_field": "max_completion_tokens",
    }  # fmt: skip
    # Whether a reply is kept does not change the reply.
    assert set(changes) == {one.name for one in fields(Sampling)} - {"is_repeatable"}
    keys = [completion_key(IDENTITY, messages, replace(sampling, **{name: value})) for name, value in changes.items()]
    keys.append(completion_key(IDENTITY, messages, sampling))
    keys.append(completion_key({**IDENTITY, "model": "other"}, messages, sampling))
    assert len(set(keys)) == len(changes) + 2


def test_an_unpaired_surrogate_has_a_key() -> None:
    halves = [completion_key(IDENTITY, [{"role": "user", "content": text}], GREEDY) for text in ("\ud83d", "\ud83e")]
    assert halves[0] != halves[1]
