from __future__ import annotations

import asyncio
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from gpo.errors import ConfigError, ModelError, ModelRefused, ModelUnavailable, RefusalReason
from gpo.models import events
from gpo.models.credentials import NO_KEY, KeySource
from gpo.models.embedding import CachedEmbedder
from gpo.models.protocol import Completion, Message, Sampling
from gpo.models.replies import Price
from gpo.models.retrying import RetryingModel
from tests.servers import serving
from tests.unit.gpo.models.remote import endpoint_of, remote_model

KEY = "canary-6b1f9e"
ASKED: list[Message] = [{"role": "user", "content": "Classify.\nwhere is my parcel"}]
GREEDY = Sampling(temperature=0.0, max_tokens=8)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def model(base_url: str, *, name: str = "task-model", **settings: Any) -> RetryingModel:
    usual: dict[str, Any] = {"max_attempts": 3, "max_backoff_s": 0.01, "timeout_s": 5.0, "patience_s": 0.2}
    return remote_model(base_url, name, **{**usual, **settings})


async def complete(asked: RetryingModel, sampling: Sampling = GREEDY) -> Completion:
    async with endpoint_of(asked).client:
        return await asked.complete(ASKED, sampling)


async def failure(asked: RetryingModel) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await complete(asked)
    error = caught.value
    assert KEY not in f"{error!s}{error!r}{error.args}{error.__cause__!r}"
    assert error.__cause__ is None
    assert error.__suppress_context__
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (type(again), str(again), again.args) == (type(error), str(error), error.args)
    return error


def statuses(server: SimulatedEndpoint) -> list[int]:
    return [record.status for record in server.requests]


def choice(**message: Any) -> dict[str, Any]:
    return {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **message}}


async def test_a_completion_has_its_usage_and_cost(server: SimulatedEndpoint) -> None:
    completion = await complete(model(server.base_url, price=Price(prompt=1e6, completion=2e6)))
    (record,) = server.requests
    usage = completion.usage
    assert (usage.requests, usage.retries, usage.failures, usage.cached) == (1, 0, 0, 0)
    assert (usage.prompt_tokens, usage.completion_tokens) == (record.prompt_tokens, record.completion_tokens) == (5, 1)
    assert usage.cost_usd == 5 * 1 + 1 * 2
    assert not completion.truncated


async def test_retries_are_counted(server: SimulatedEndpoint) -> None:
    server.behaviour = Behaviour(fail_next=2)
    completion = await complete(model(server.base_url))
    assert (completion.usage.requests, completion.usage.retries) == (1, 2)
    assert statuses(server) == [500, 500, 200]


async def test_attempts_are_bounded(server: SimulatedEndpoint) -> None:
    server.behaviour = Behaviour(fail_next=99)
    error = await failure(model(server.base_url))
    assert isinstance(error, ModelUnavailable)
    assert error.retries == 2
    assert "HTTP 500" in str(error)
    assert statuses(server) == [500] * 3


async def test_retry_after_is_respected(server: SimulatedEndpoint) -> None:
    server.behaviour = Behaviour(limit=0, retry_after_s=0.3)
    error = await failure(model(server.base_url, max_attempts=2, max_backoff_s=5.0))
    assert isinstance(error, ModelUnavailable)
    first, second, *_ = server.requests
    assert set(statuses(server)) == {429}
    assert second.started_s - first.finished_s >= 0.3


async def test_refusals_for_overload_do_not_count_as_attempts(server: SimulatedEndpoint) -> None:
    server.behaviour = Behaviour(limit=0, retry_after_s=0.0)
    waiting = asyncio.create_task(complete(model(server.base_url, patience_s=60)))
    async with asyncio.timeout(60):
        while len(server.requests) < 10:  # noqa: ASYNC110  # the server is in another thread
            await asyncio.sleep(0.01)
    server.behaviour = Behaviour()
    assert (await waiting).usage.retries >= 10


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (Behaviour(api_key="another"), RefusalReason.KEY),
        (Behaviour(fail_next=9, error_status=403), RefusalReason.KEY),
        (Behaviour(models=("another",)), RefusalReason.MODEL),
        (Behaviour(fail_next=9, error_status=400), RefusalReason.REQUEST),
        (Behaviour(fail_next=9, error_status=422), RefusalReason.REQUEST),
    ],
)
async def test_a_final_refusal_is_not_retried(
    behaviour: Behaviour, reason: RefusalReason, server: SimulatedEndpoint
) -> None:
    server.behaviour = behaviour
    error = await failure(model(server.base_url))
    assert isinstance(error, ModelRefused)
    assert (error.reason, error.model, error.base_url) == (reason, "task-model", server.base_url)
    assert error.key_location == "the environment variable OPENAI_API_KEY"
    assert len(server.requests) == 1


async def test_requests_continue_when_the_server_is_back(unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = asyncio.Semaphore(0)

    class Observer(events.NullObserver):
        def request_ended(self, *_: object) -> None:
            ended.release()

    monkeypatch.setattr(events, "_observer", Observer())
    url = f"http://127.0.0.1:{unused_tcp_port}/v1"
    waiting = asyncio.create_task(complete(model(url, patience_s=60, max_attempts=1)))
    for _ in range(3):
        await asyncio.wait_for(ended.acquire(), 20)
    with SimulatedEndpoint(port=unused_tcp_port):
        assert (await asyncio.wait_for(waiting, 20)).usage.retries > 2


@pytest.mark.parametrize(("status", "is_counted"), [(500, True), (408, True), (502, False), (503, False), (504, False)])
async def test_failures_reported_by_a_gateway_do_not_count_as_attempts(
    status: int, is_counted: bool, server: SimulatedEndpoint
) -> None:
    server.behaviour = Behaviour(fail_next=5, error_status=status)
    waiting = complete(model(server.base_url, patience_s=60))
    if is_counted:
        with pytest.raises(ModelUnavailable):
            await waiting
    else:
        assert (await waiting).usage.retries == 5


async def test_a_broken_connection_counts_as_an_attempt() -> None:
    asked = 0

    async def broken(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async with serving(broken) as url:
        error = await failure(model(url, patience_s=60))
    assert isinstance(error, ModelUnavailable)
    assert (asked, error.retries) == (3, 2)


@pytest.mark.parametrize(
    "body",
    [
        "<html>Gateway</html>",
        "",
        "null",
        "[]",
        "{}",
        '{"choices": []}',
        '{"choices": null}',
        '{"choices": [',
        '{"choices": [null]}',
        '{"choices": [{}]}',
        '{"choices": [{"message": null}]}',
        '{"choices": 3}',
    ],
)
async def test_a_successful_reply_without_a_completion_is_unavailable(body: str) -> None:
    asked = 0

    async def nonsense(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(text=body, content_type="text/html")

    async with serving(nonsense) as url:
        error = await failure(model(url))
    assert isinstance(error, ModelUnavailable)
    assert asked == 3


async def test_sampling_settings_are_sent_unchanged() -> None:
    bodies: list[dict[str, Any]] = []

    async def keep(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        return web.json_response({"choices": [choice(content="yes")]})

    async with serving(keep) as url:
        await complete(model(url), Sampling(0.5, 7, 0.9, ("<END>",), {"min_p": 0.05}, 3))
        await complete(model(url), Sampling())
        await complete(model(url, completion_limit="max_completion_tokens"), Sampling(max_tokens=7))
    asked = {"model": "task-model", "messages": ASKED}
    sampling = {"temperature": 0.5, "max_tokens": 7, "top_p": 0.9, "stop": ["<END>"], "seed": 3, "min_p": 0.05}
    assert bodies == [{**asked, **sampling}, asked, {**asked, "max_completion_tokens": 7}]


async def test_each_request_has_its_own_body_and_the_newest_cookie() -> None:
    """Requests take URL and headers from earlier ones."""
    seen: list[tuple[str, str, int, str]] = []

    async def balance(request: web.Request) -> web.Response:
        body, cookie = await request.json(), request.cookies.get("AWSALB", "")
        seen.append((request.path_qs, body["messages"][0]["content"], request.content_length or 0, cookie))
        response = web.json_response({"choices": [choice(content="yes")]})
        response.set_cookie("AWSALB", f"n{len(seen)}")
        return response

    async def ask(asked: RetryingModel, *texts: str) -> None:
        for text in texts:
            await asked.complete([{"role": "user", "content": text}], Sampling())

    async with serving(balance) as url:
        await ask(model(url), "a", "bb", "a")
        await ask(model(url, query=(("version", "2"),)), "a", "bb")
    path, length = "/v1/chat/completions", seen[0][2]
    assert seen == [
        (path, "a", length, ""),
        (path, "bb", length + 1, "n1"),
        (path, "a", length, "n2"),
        (f"{path}?version=2", "a", length, ""),
        (f"{path}?version=2", "bb", length + 1, "n4"),
    ]


async def test_a_used_model_pickles_without_key_or_connection(server: SimulatedEndpoint) -> None:
    server.behaviour = Behaviour(api_key=KEY)
    used = model(server.base_url)
    await used.complete(ASKED, GREEDY)
    packed = pickle.dumps(used)
    assert KEY.encode() not in packed
    assert KEY not in repr(used)
    copy = pickle.loads(packed)  # noqa: S301
    assert endpoint_of(copy) == endpoint_of(used)
    assert (await complete(copy)).text == (await complete(used)).text


def test_a_key_file_takes_precedence_over_the_variable(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("of-the-file\n", encoding="utf-8")
    assert KeySource(file=str(tmp_path / "key")).read() == "of-the-file"
    assert KeySource().read() == KEY


@pytest.mark.parametrize("content", [b"sk-canary\nsk-second", "sk-canary…".encode(), b"sk canary", b"sk-canary\xff"])
def test_a_key_file_with_invalid_characters_is_refused_and_not_shown(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        KeySource(file=str(tmp_path / "key")).read()
    assert caught.value.field == "api_key_file"
    assert "canary" not in str(caught.value)


def test_a_missing_key_is_refused_only_if_it_is_required(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", " ")
    assert KeySource().read() == NO_KEY
    with pytest.raises(ConfigError, match="OPENAI_API_KEY is not set"):
        KeySource(required=True).read()
    with pytest.raises(ConfigError, match="cannot be read"):
        KeySource(file=str(tmp_path / "nothing")).read()
    (tmp_path / "empty").touch()
    with pytest.raises(ConfigError, match="is empty"):
        KeySource(file=str(tmp_path / "empty")).read()


async def test_a_text_is_embedded_once(server: SimulatedEndpoint) -> None:
    asked = model(server.base_url, name="embed-model")
    embedder = CachedEmbedder(asked)
    async with endpoint_of(asked).client:
        first = await embedder.embed(["a parcel", "a login", "a parcel"])
        again = await embedder.embed(["a login", "a parcel"])
        assert await embedder.embed([]) == []
    assert [list(vector) for vector in again] == [list(first[1]), list(first[0])]
    assert list(first[2]) == list(first[0])
    assert len(server.requests) == 1
    assert json.dumps(first)


@pytest.mark.parametrize(
    "body", ["not JSON", "{}", '{"data": []}', '{"data": null}', '{"data": [{}]}', '{"data": [{"embedding": null}]}']
)
async def test_a_successful_reply_without_embeddings_is_unavailable(body: str) -> None:
    async def nonsense(_: web.Request) -> web.Response:
        return web.Response(text=body, content_type="application/json")

    async with serving(nonsense) as url:
        asked = model(url)
        async with endpoint_of(asked).client:
            with pytest.raises(ModelUnavailable):
                await CachedEmbedder(asked).embed(["a parcel"])
