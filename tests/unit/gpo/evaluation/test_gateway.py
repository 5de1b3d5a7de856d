from __future__ import annotations

import asyncio
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpcore2
import httpx2
import pytest
from aiohttp import web

from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from gpo.data.example import Example
from gpo.errors import BudgetExhausted, EvaluationError
from gpo.evaluation import gateway as gateway_module
from gpo.evaluation import program_calls
from gpo.evaluation.gateway import MAX_BODY_BYTES, Gateway, opened_gateway, process_gateway
from gpo.evaluation.program import Program, ProgramSpec, Response
from gpo.evaluation.program_calls import Caller, HttpReply, OfferedModel, Recorder
from gpo.limits.gate import Gate
from gpo.limits.limiter import LocalLimiter
from gpo.limits.messages import Budget, Pool, Spent
from gpo.models.credentials import KeySource
from gpo.models.endpoint import Endpoint
from gpo.models.openai import openai_model
from gpo.models.protocol import Forwarded, Usage
from gpo.models.retrying import RetryPolicy
from gpo.prompt import Prompt
from gpo.runtime.context import current_caller
from gpo.sockets import bound_socket
from gpo.user_code.environment import replaced, variable
from gpo.user_code.functions import FunctionReference
from tests.paths import ROOT

FOLDER = str(Path(__file__).parent)
MODELS = dict[str, OfferedModel]
EXAMPLE = Example("x", ("y",), row={"question": "What?"})
PROMPT = Prompt("Answer it.")
WAYS = ["with_openai", "with_async_openai", "streaming", "with_the_client_s_address", "with_the_client", "with_urllib"]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[SimulatedEndpoint]:
    with SimulatedEndpoint() as running:
        yield running


@pytest.fixture
def models(endpoint: SimulatedEndpoint) -> MODELS:
    return models_of(endpoint)


def models_of(endpoint: SimulatedEndpoint, **options: Any) -> MODELS:
    return {
        name: OfferedModel(openai_model(Endpoint(endpoint.base_url, name), **options), {"temperature": 0.0})
        for name in ("task-model", "embed-model")
    }


def program(models: MODELS, name: str) -> Program:
    return Program(ProgramSpec(FunctionReference("gateway_programs", name, (FOLDER,)), gateway=True), models)


async def respond(models: MODELS, name: str, question: str = "What?") -> Response:
    return await program(models, name).respond(PROMPT, Example("x", ("y",), row={"question": question}))


@pytest.mark.parametrize("way", [*WAYS, "with_aiohttp"])
async def test_a_call_over_http_is_recorded_for_its_example(models: MODELS, way: str) -> None:
    responses = await asyncio.gather(*(respond(models, way, question) for question in ("Who?", "Why?", "When?")))

    for response, question in zip(responses, ("Who?", "Why?", "When?"), strict=True):
        (call,) = response.calls
        assert question in call.request["messages"][0]["content"]
        assert call.part == "prompt"
        assert response.answer == call.reply["choices"][0]["message"]["content"]
        assert response.usage.requests == 1
        assert response.usage.prompt_tokens > 0
    assert "OPENAI_BASE_URL" not in os.environ or os.environ["OPENAI_BASE_URL"] != process_gateway().url


@pytest.mark.parametrize("way", WAYS)
async def test_httpx_opens_no_connection_to_a_gateway_of_its_process(
    models: MODELS, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    received = _count_received(monkeypatch)

    assert (await respond(models, way)).usage.requests == 1

    assert len(received) == (1 if way == "with_urllib" else 0)


@pytest.mark.parametrize("way", ["reading_as_it_comes", "reading_as_it_comes_async"])
async def test_a_reply_without_a_connection_reads_like_any_other(models: MODELS, way: str) -> None:
    response = await respond(models, way)

    assert response.usage.requests == 2
    assert response.answer == response.calls[0].reply["choices"][0]["message"]["content"]


async def test_a_request_without_a_connection_may_be_as_large_as_any_other(
    models: MODELS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_module, "MAX_BODY_BYTES", 1_000)

    statuses = [(await respond(models, "too_large", "x" * size)).answer for size in (1_000, 1_001)]

    assert statuses == ["404", "413"]  # the first is no JSON


def test_forked_children_of_a_program_get_their_own_replies() -> None:
    """Of a program in the gateway's own process, and of one in a child process."""
    script = Path(__file__).with_name("forking_run.py")

    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=200, check=False, cwd=ROOT)

    assert ran.stdout.splitlines() == ["3 of 3 children, 62 calls"] * 2, ran.stderr


def test_httpx_uses_a_connection_in_an_event_loop_of_another_package(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []

    async def handled(self: Any, request: Any) -> httpcore2.Response:
        sent.append(request.url.target)
        return httpcore2.Response(200, content=b"")

    async def asked(gateway: Gateway) -> int:
        headers = {"Authorization": f"Bearer {gateway.key()}"}
        request = httpx2.Request("GET", f"{gateway.url}/models", headers=headers)
        return (await httpx2.AsyncHTTPTransport().handle_async_request(request)).status_code

    monkeypatch.setattr(httpcore2.AsyncConnectionPool, "handle_async_request", handled)
    with opened_gateway() as gateway, pytest.raises(StopIteration) as ended:
        asked(gateway).send(None)  # as a loop does that is not asyncio's

    assert (ended.value.value, sent) == (200, [b"/v1/models"])


def _count_received(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the requests that reach the gateway over HTTP from now on."""
    received, reply = [], Gateway.reply

    async def replied(self: Gateway, method: str, path: str, headers: Any, read: Any) -> HttpReply:
        if isinstance(getattr(read, "__self__", None), web.Request):
            received.append(path)
        return await reply(self, method, path, headers, read)

    monkeypatch.setattr(Gateway, "reply", replied)
    return received


async def test_a_client_works_in_one_event_loop_after_the_other(models: MODELS) -> None:
    assert (await respond(models, "in_event_loops_of_its_own")).usage.requests == 2


async def test_threads_of_an_example_call_at_once(models: MODELS, monkeypatch: pytest.MonkeyPatch) -> None:
    submit = asyncio.run_coroutine_threadsafe

    def slowly_submitted(coroutine: Any, loop: asyncio.AbstractEventLoop) -> Future[Any]:
        time.sleep(0.01)  # so that the threads meet here
        return submit(coroutine, loop)

    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", slowly_submitted)
    response = await respond(models, "in_threads_at_once")

    assert len(response.calls) == response.usage.requests == 8
    assert {response.answer} == {call.reply["choices"][0]["message"]["content"] for call in response.calls}


async def test_calls_of_several_threads_that_name_no_example_are_counted_together(
    models: MODELS, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(program_calls._Unnamed):
        def __init__(self, *arguments: Any, **fields: Any) -> None:
            time.sleep(0.05)  # so that the threads meet here
            super().__init__(*arguments, **fields)

    monkeypatch.setattr(program_calls, "_Unnamed", Slow)
    monkeypatch.setattr(program_calls, "_unnamed", None)
    with program_calls.example_in_work(models, Recorder({})):
        first, second = await asyncio.gather(*(asyncio.to_thread(program_calls.caller_named, "") for _ in range(2)))

    assert first.recorder is second.recorder


@pytest.mark.parametrize("way", ["swallowing", "swallowing_in_a_thread"])
async def test_a_failure_of_the_gateway_itself_ends_the_run_whatever_the_program_does(way: str) -> None:
    class Broken:
        async def forward(self, route: str, body: Mapping[str, Any]) -> Forwarded:
            raise RuntimeError("cannot enter context")

    with pytest.raises(EvaluationError, match="a call of the program failed for an unexpected reason"):
        await respond({"own": OfferedModel(Broken(), {})}, way)


async def test_a_call_of_a_thread_without_context_counts_for_the_next_example_that_ends(models: MODELS) -> None:
    response = await respond(models, "in_a_thread_without_context")

    assert response.calls == ()
    assert response.usage.requests == 1
    assert (await respond(models, "with_openai")).usage.requests == 1  # counted once


async def test_a_call_is_made_for_the_trajectory_that_asks() -> None:
    model = _Recorded({"choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}}]})
    models = {"own": OfferedModel(model, {})}

    async def asked(caller: str, way: str) -> None:
        current_caller.set(caller)
        await respond(models, way)

    await asyncio.gather(asked("triage/0", "with_async_openai"), asked("triage/1", "with_openai"))
    await asked("triage/2", "in_a_thread_without_context")

    assert sorted(model.callers) == ["", "triage/0", "triage/1"]


@pytest.mark.parametrize("question", ["at once", "in a stream"])
async def test_tool_calls_pass_unchanged(question: str) -> None:
    call = {"id": "call-1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    model = _Recorded({"id": "1", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]})

    response = await respond({"own": OfferedModel(model, {"temperature": 0.5})}, "calling_a_tool", question)

    assert response.answer == 'add{"a": 1}'
    (body,) = model.bodies
    assert body["tools"][0]["function"]["name"] == "add"
    assert body["temperature"] == 0.5
    assert "stream" not in body


async def test_embeddings_and_the_list_of_models(models: MODELS) -> None:
    assert (await respond(models, "embedding")).answer == "64"
    assert (await respond(models, "listing")).answer == "task task-model embed-model"


@pytest.mark.parametrize("way", ["swallowing", "swallowing_in_a_thread"])
async def test_an_example_whose_program_hides_a_failure_stays_unscored(way: str) -> None:
    with SimulatedEndpoint(Behaviour(error_rate=1.0)) as broken:
        models = models_of(broken, retries=RetryPolicy(max_attempts=1))
        response = await respond(models, way)

        assert response.answer is None
        assert "HTTP 5" in response.problem
        assert response.usage.failures == 1  # the framework's client repeats nothing
        assert len(broken.requests) == 1


async def test_a_used_up_budget_ends_the_run(endpoint: SimulatedEndpoint) -> None:
    limiter, before = LocalLimiter(), len(endpoint.requests)
    pool = Pool(endpoint.base_url, "task-model", 8, 8, budget_name="run", has_budget=True, has_call_budget=True)
    await limiter.open_budget("run", Budget(calls=1), Spent())

    with pytest.raises(BudgetExhausted):
        await respond(models_of(endpoint, gate=Gate(limiter, pool)), "two_calls")

    assert len(endpoint.requests) == before + 1


async def test_an_async_program_that_blocks_the_loop_is_a_bug(models: MODELS, monkeypatch: Any) -> None:
    monkeypatch.setattr(gateway_module, "_BLOCKED_S", 0.3)

    with pytest.raises(EvaluationError, match="write a plain function"):
        await respond(models, "blocking")


async def test_a_request_for_an_example_that_has_ended_is_refused(models: MODELS, endpoint: SimulatedEndpoint) -> None:
    await respond(models, "leaving_its_key")
    (late,) = next(module.LATE for name, module in sys.modules.items() if name.endswith(".gateway_programs"))
    before = len(endpoint.requests)

    with opened_gateway() as gateway:
        status, body = await asyncio.to_thread(_post, gateway, {"model": "task", "messages": []}, late)

    assert (status, len(endpoint.requests)) == (410, before)
    assert "ended" in body["error"]["message"]


async def test_requests_are_told_apart_where_a_process_works_on_several_runs(models: MODELS) -> None:
    other = _Recorded({"choices": [{"index": 0, "message": {"role": "assistant", "content": "the other run"}}]})
    others = {"own": OfferedModel(other, {})}

    mine, its = await asyncio.gather(respond(models, "with_openai"), respond(others, "with_openai"))
    assert its.answer == "the other run" != mine.answer

    silent = _Silent({})
    waiting = asyncio.create_task(respond({"silent": OfferedModel(silent, {})}, "with_async_openai"))
    async with asyncio.timeout(60):
        while not silent.bodies:  # noqa: ASYNC110  # the model may be asked in another thread
            await asyncio.sleep(0.01)
    with pytest.raises(EvaluationError, match="works on several runs"):
        await respond(others, "in_a_thread_without_context")
    waiting.cancel()
    with pytest.raises((asyncio.CancelledError, EvaluationError)):
        await waiting


@pytest.mark.parametrize("key", ["", "wrong", "Bearer", "sk-é"])
async def test_a_request_without_the_token_is_refused(key: str, models: MODELS, endpoint: SimulatedEndpoint) -> None:
    before = len(endpoint.requests)
    with opened_gateway() as gateway:
        status, body = await asyncio.to_thread(_post, gateway, {"model": "task", "messages": []}, key)

    assert (status, len(endpoint.requests)) == (401, before)
    assert gateway.key() not in json.dumps(body)


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "words"),
    [
        ("POST", "/v1/responses", b"{}", 404, "POST /chat/completions"),
        ("GET", "/v1/chat/completions", b"", 404, "GET /models"),
        ("POST", "/v1/chat/completions", b"no JSON", 404, "JSON body"),
        ("POST", "/v1/chat/completions", b"[" * 100_000, 404, "JSON body"),
        ("POST", "/v1/chat/completions", b'{"model": "unknown"}', 400, "task-model"),
        ("POST", "/v1/chat/completions", b"x" * (MAX_BODY_BYTES + 1), 413, "larger"),
    ],
)
async def test_requests_that_cannot_be_answered(
    method: str, path: str, content: bytes, status: int, words: str, models: MODELS
) -> None:
    gateway = standalone(models)

    async with httpx2.AsyncClient(trust_env=False, headers={"Authorization": f"Bearer {gateway.key()}"}) as client:
        reply = await client.request(method, gateway.url.removesuffix("/v1") + path, content=content)

    assert reply.status_code == status
    assert words in reply.json()["error"]["message"]


def standalone(models: MODELS) -> Gateway:
    """A gateway for whoever has the token."""
    caller = Caller(models, Recorder({}), asyncio.get_running_loop(), copy_context())
    gateway = Gateway("token", lambda _: caller, bound_socket("127.0.0.1", 0))
    gateway.start()
    return gateway


@pytest.mark.parametrize("what", ["a thread", "an event loop", "the server"])
def test_a_gateway_that_does_not_start_says_so_to_all_who_wait_and_starts_later(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = Gateway("token", lambda _: pytest.fail("nobody calls"), bound_socket("127.0.0.1", 0))

    def fail(*_args: Any, **_options: Any) -> None:
        raise RuntimeError("no more")

    with monkeypatch.context() as patch:
        owner, name = {
            "a thread": (gateway_module.threading.Thread, "start"),
            "an event loop": (asyncio.events, "new_event_loop"),
            "the server": (web.AppRunner, "setup"),
        }[what]
        patch.setattr(owner, name, fail)
        for _ in range(2):
            with pytest.raises(EvaluationError, match=r"does not start \(no more\); if this process has too many"):
                gateway.start()
    gateway.start()
    assert httpx2.get(f"{gateway.url}/models", timeout=60).status_code == 401


def test_threads_that_open_the_gateway_first_at_the_same_moment_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    bind, named = gateway_module.bound_socket, list[str]()

    def slowly_bound(*address: Any) -> Any:
        time.sleep(0.05)  # so that the threads meet here
        return bind(*address)

    @cache
    def slowly_named(url: str, gateway: Gateway) -> None:
        time.sleep(0.05)
        named.append(url)

    def opened() -> Gateway:
        with opened_gateway() as gateway:
            return gateway

    monkeypatch.setattr(gateway_module, "bound_socket", slowly_bound)
    monkeypatch.setattr(gateway_module, "name_examples", slowly_named)
    monkeypatch.setattr(gateway_module, "_made_gateway", cache(gateway_module._made_gateway.__wrapped__))
    with ThreadPoolExecutor(4) as pool:
        gateways = {one.result() for one in [pool.submit(opened) for _ in range(4)]}

    assert len(gateways) == len(named) == 1


async def test_our_own_keys_are_not_the_gateway_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-real")
    monkeypatch.setenv("NO_PROXY", "example.org")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)

    with opened_gateway() as gateway:
        assert KeySource().read() == "sk-real"
        assert KeySource(command=("printenv", "OPENAI_API_KEY")).read() == "sk-real"
        assert variable("OPENAI_BASE_URL") == ""
        assert os.environ["OPENAI_API_KEY"] == gateway.key()
        assert os.environ["NO_PROXY"] == "example.org,127.0.0.1"

    assert os.environ["OPENAI_API_KEY"] == "sk-real"
    assert "OPENAI_BASE_URL" not in os.environ


def test_variables_come_back_when_the_last_block_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPO_TEST_VARIABLE", "own")
    first, second = replaced({"GPO_TEST_VARIABLE": "other"}), replaced({"GPO_TEST_VARIABLE": "other"})

    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert (os.environ["GPO_TEST_VARIABLE"], variable("GPO_TEST_VARIABLE")) == ("other", "own")
    second.__exit__(None, None, None)
    assert os.environ["GPO_TEST_VARIABLE"] == variable("GPO_TEST_VARIABLE") == "own"


class _Recorded:
    """A model that replies the same, and keeps what it was asked, and for whom."""

    def __init__(self, reply: Mapping[str, Any]) -> None:
        self._reply = reply
        self.bodies: list[Mapping[str, Any]] = []
        self.callers: list[str] = []

    async def forward(self, route: str, body: Mapping[str, Any]) -> Forwarded:
        self.bodies.append(body)
        self.callers.append(current_caller.get())
        return Forwarded(self._reply, Usage(requests=1))


class _Silent(_Recorded):
    """A model that never replies."""

    async def forward(self, route: str, body: Mapping[str, Any]) -> Forwarded:
        await super().forward(route, body)
        await asyncio.Event().wait()
        raise AssertionError


def _post(gateway: Gateway, body: Any, key: str) -> tuple[int, Any]:
    """Status and body of the reply to a request with this key."""
    connection = http.client.HTTPConnection(urlsplit(gateway.url).netloc)
    headers = {"Authorization": f"Bearer {key}".encode()} if key else {}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)  # type: ignore[arg-type]
    reply = connection.getresponse()
    status, content = reply.status, json.loads(reply.read())
    connection.close()
    return status, content
