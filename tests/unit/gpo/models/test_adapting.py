"""Real endpoints refuse parameters, rotate keys, only stream and fail in the middle of a reply."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gpo.cache.sqlite import SqliteStore
from gpo.errors import ConfigError, ModelError, ModelRefused, ModelUnavailable, RefusalReason
from gpo.limits.gate import SETTLES_S, Gate
from gpo.limits.limiter import LocalLimiter
from gpo.limits.messages import Budget, Pool, Spent
from gpo.models.adapting import AdaptingModel
from gpo.models.cached import CachedModel
from gpo.models.credentials import KeySource
from gpo.models.embedding import CachedEmbedder
from gpo.models.endpoint import Endpoint
from gpo.models.openai import openai_model
from gpo.models.protocol import Completion, Message, Sampling, Usage, given_up
from gpo.models.replies import Price
from gpo.models.retrying import RetryPolicy
from tests.servers import serving
from tests.unit.gpo.models.remote import endpoint_of, remote_model

ASKED: list[Message] = [{"role": "user", "content": "Hello?"}]
SAMPLING = Sampling(temperature=0.0, max_tokens=8, top_p=0.5, seed=7)
Handler = Callable[[dict[str, Any], web.Request], Any]


@asynccontextmanager
async def endpoint(handler: Handler) -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """The base URL of a server that answers with what the handler makes of a body, and the bodies it received."""
    bodies: list[dict[str, Any]] = []

    async def reply(request: web.Request) -> web.Response:
        body = await request.json()
        bodies.append(body)
        made = handler(body, request)
        return made if isinstance(made, web.Response) else web.json_response(made)

    async with serving(reply) as url:
        yield url, bodies


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": text}, "finish_reason": "stop", **more}]}


def refusing(*names: str) -> Handler:
    def reply(body: dict[str, Any], _: web.Request) -> Any:
        for name in names:
            if name in body:
                message = f"Unsupported parameter: '{name}' is not supported with this model."
                return web.json_response({"error": {"message": message, "param": name}}, status=400)
        return said(f"without {','.join(names)}")

    return reply


def adapting(url: str, **settings: Any) -> tuple[AdaptingModel, Any]:
    below = remote_model(url, max_attempts=2, max_backoff_s=0.01, **settings)
    return AdaptingModel(below, "task-model"), endpoint_of(below)


async def complete(url: str, sampling: Sampling = SAMPLING, times: int = 1, **settings: Any) -> Completion:
    model, connection = adapting(url, **settings)
    async with connection.client:
        for _ in range(times):
            reply = await model.complete(ASKED, sampling)
    return reply


@pytest.mark.parametrize("names", [("seed",), ("temperature", "top_p"), ("max_tokens", "max_completion_tokens")])
async def test_a_refused_parameter_is_left_out_from_then_on(names: tuple[str, ...], caplog: Any) -> None:
    async with endpoint(refusing(*names)) as (url, bodies):
        reply = await complete(url, times=3)
    assert reply.text.startswith("without")
    assert len(bodies) == len(names) + 3
    assert all(not body.keys() & set(names) for body in bodies[len(names) :])
    assert sum("does not accept" in record.message for record in caplog.records) == len(names)


async def test_max_tokens_gives_way_to_its_successor() -> None:
    async with endpoint(refusing("max_tokens")) as (url, bodies):
        await complete(url, times=2)
    assert [body.get("max_completion_tokens") for body in bodies] == [None, 8, 8]


async def test_replies_with_and_without_a_parameter_have_different_keys(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "cache.sqlite")
    identity = {"model": "task-model"}
    async with endpoint(refusing("top_p")) as (url, bodies):
        for _ in range(2):  # two runs
            below = remote_model(url)
            async with endpoint_of(below).client:
                await AdaptingModel(CachedModel(below, store, identity), "task-model").complete(ASKED, SAMPLING)
    # The first run: refused, then answered; the second one: refused, then found.
    assert ["top_p" in body for body in bodies] == [True, False, True]


async def test_the_key_is_read_again_when_it_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("old-key-0123456789")

    def reply(_: dict[str, Any], request: web.Request) -> Any:
        if request.headers["Authorization"] == "Bearer new-key-0123456789":
            return said("welcome")
        file.write_text("new-key-0123456789")
        return web.json_response({"error": {"message": "expired"}}, status=401)

    async with endpoint(reply) as (url, bodies):
        assert (await complete(url, key=KeySource(file=str(file)))).text == "welcome"
    assert len(bodies) == 2


def streamed(*events: Any) -> web.Response:
    lines = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    return web.Response(text=f": comment\n\n{lines}data: [DONE]\n\n", content_type="text/event-stream")


async def test_an_endpoint_that_only_streams_is_read_as_a_stream() -> None:
    def reply(body: dict[str, Any], _: web.Request) -> Any:
        if not body.get("stream"):
            return web.json_response({"error": {"message": "This model only supports stream=true."}}, status=400)
        return streamed(
            {"choices": [{"index": 0, "delta": {"content": "Hel"}}]},
            {"choices": [{"index": 0, "delta": {"content": "lo"}, "finish_reason": "length"}]},
            {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
        )

    async with endpoint(reply) as (url, bodies):
        completion = await complete(url, times=2)
    assert (completion.text, completion.truncated, completion.usage.completion_tokens) == ("Hello", True, 2)
    assert len(bodies) == 3


async def test_tokens_that_are_only_in_the_total_are_charged() -> None:
    usage = {"prompt_tokens": 50, "completion_tokens": 2, "total_tokens": 1052}
    async with endpoint(lambda *_: {**said("yes"), "usage": usage}) as (url, _):
        assert (await complete(url)).usage.completion_tokens == 1002


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (said("", finish_reason="error", error={"message": "upstream broke"}), ModelUnavailable),
        (said("half an ans", finish_reason="content_filter"), ModelRefused),
    ],
)
async def test_a_reply_that_failed_or_was_filtered_is_no_answer(body: Any, kind: type[ModelError]) -> None:
    async with endpoint(lambda *_: body) as (url, _):
        with pytest.raises(kind):
            await complete(url)


USAGE = {"prompt_tokens": 30, "completion_tokens": 20}
BILLED = Usage(prompt_tokens=30, completion_tokens=20, cost_usd=0.07)


@pytest.mark.parametrize(
    ("body", "billed"),
    [
        ({**said("half an ans", finish_reason="content_filter"), "usage": USAGE}, BILLED),
        ({**said("half an ans", finish_reason="error"), "usage": USAGE}, BILLED + BILLED),
        ({"choices": [], "usage": USAGE}, BILLED + BILLED),
        (said("half an ans", finish_reason="error"), None),
    ],
)
async def test_a_reply_that_is_no_answer_counts_as_billed(body: Any, billed: Usage | None) -> None:
    bodies = iter([body, body, body, {**said("yes"), "usage": USAGE}])
    limiter = LocalLimiter()
    await limiter.open_budget("run", Budget(tokens=10**6), Spent())
    async with endpoint(lambda *_: next(bodies)) as (url, _):
        there = Endpoint(url, "task-model", price=Price(1000, 2000))
        gate = Gate(limiter, Pool(url, "task-model", 1, 1, budget_name="run", has_budget=True))
        model = openai_model(there, gate, RetryPolicy(max_attempts=2, max_backoff_s=0.001))
        with pytest.raises((ModelUnavailable, ModelRefused)) as caught:
            await model.complete(ASKED, SAMPLING)
        assert caught.value.billed == billed
        assert given_up(caught.value) == (billed or Usage()) + Usage(failures=1, retries=caught.value.args[1] == 1)
        tokens = (billed or Usage()).prompt_tokens + (billed or Usage()).completion_tokens
        for _ in range(40):  # the gate reports after ``SETTLES_S``, unless the machine is slow
            await asyncio.sleep(2 * SETTLES_S)
            spent = await limiter.budget_spent("run", Budget(), Spent())
            if spent.tokens >= tokens:
                break
        assert (spent.calls, spent.tokens) == (0, tokens)
        if isinstance(caught.value, ModelUnavailable):
            first = billed and BILLED
            reply = await model.complete(ASKED, SAMPLING)
            assert reply.usage == (first or Usage()) + BILLED + Usage(requests=1, retries=1)


@pytest.mark.parametrize("reason", ["length", "max_tokens", "MAX_TOKENS", "max_output_tokens"])
async def test_a_cut_reply_is_known_by_every_name(reason: str) -> None:
    async with endpoint(lambda *_: said("half", finish_reason=reason)) as (url, _):
        assert (await complete(url)).truncated


@pytest.mark.parametrize("reason", ["content_filter", "SAFETY", "content_filter: RECITATION", "PROHIBITED_CONTENT"])
async def test_a_filtered_reply_is_known_by_every_name(reason: str) -> None:
    async with endpoint(lambda *_: said("", finish_reason=reason)) as (url, _):
        with pytest.raises(ModelRefused) as caught:
            await complete(url)
    assert caught.value.reason is RefusalReason.FILTER


@pytest.mark.parametrize("reason", ["abort", "ERROR", "insufficient_system_resource", "network_error"])
async def test_a_broken_generation_is_known_by_every_name(reason: str) -> None:
    async with endpoint(lambda *_: said("par", finish_reason=reason)) as (url, _):
        with pytest.raises(ModelUnavailable):
            await complete(url)


async def test_a_stream_that_ends_early_is_no_reply() -> None:
    text = f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'content': 'The answer is not'}}]})}\n\n"
    async with endpoint(lambda *_: web.Response(text=text, content_type="text/event-stream")) as (url, _):
        with pytest.raises(ModelUnavailable, match="the stream ended early"):
            await complete(url)


async def test_replies_are_kept_although_the_endpoint_refuses_what_makes_them_repeatable(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "cache.sqlite")
    async with endpoint(refusing("temperature", "seed")) as (url, bodies):
        below = remote_model(url)
        model = AdaptingModel(CachedModel(below, store, {"model": "task-model"}), "task-model")
        async with endpoint_of(below).client:
            for _ in range(3):
                await model.complete(ASKED, SAMPLING)
    assert len(bodies) == 3  # two refusals and one reply


async def test_a_refusal_of_the_model_is_its_answer() -> None:
    message = {"content": None, "refusal": "I cannot help with that."}
    async with endpoint(lambda *_: {"choices": [{"message": message, "finish_reason": "stop"}]}) as (url, _):
        assert (await complete(url)).text == "I cannot help with that."


async def test_an_error_with_empty_choices_is_read_as_the_error() -> None:
    error = {"message": "Provider returned error", "code": 429, "metadata": {"raw": "Too Many Requests"}}
    async with endpoint(lambda *_: {"id": None, "choices": None, "error": error}) as (url, _):
        with pytest.raises(ModelUnavailable, match="Too Many Requests"):
            await complete(url, patience_s=0.01)


@pytest.mark.parametrize("key", ['"sk-0123456789"', "'sk-0123456789'"])
async def test_a_key_in_quotation_marks_is_a_mistake(key: str, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(key)
    with pytest.raises(ConfigError, match="is in quotation marks; remove them"):
        await complete("http://127.0.0.1:9/v1", key=KeySource(file=str(file)))


async def test_thoughts_in_fields_of_their_own_are_ignored() -> None:
    message = {"content": "yes", "reasoning_content": "no? no.", "reasoning": "no."}
    body = {"choices": [{"message": message, "finish_reason": "stop"}]}
    async with endpoint(lambda *_: body) as (url, _):
        assert (await complete(url)).answer == "yes"


async def test_embeddings_are_asked_for_in_batches_that_the_endpoint_accepts() -> None:
    def reply(body: dict[str, Any], _: web.Request) -> Any:
        texts: Sequence[str] = body["input"]
        if len(texts) > 10:
            return web.json_response({"error": {"message": "batch size should not exceed 10"}}, status=400)
        return {"data": [{"embedding": [float(text)]} for text in texts]}

    async with endpoint(reply) as (url, bodies):
        model = remote_model(url)
        embedder = CachedEmbedder(model)
        async with endpoint_of(model).client:
            vectors = await embedder.embed([str(number) for number in range(40)])
            await embedder.embed([str(number) for number in range(100, 116)])
    assert [vector[0] for vector in vectors] == list(range(40))
    assert [len(body["input"]) for body in bodies] == [40, 20, 10, 10, 10, 10, 10, 6]
