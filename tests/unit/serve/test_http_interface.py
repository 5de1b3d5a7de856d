"""The HTTP interface as an ASGI application, over a real evaluator in this process."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections import Counter
from collections.abc import AsyncIterator, Generator, Iterator
from threading import Thread
from typing import Any

import httpx2
import msgpack
import pytest
import schemathesis
import schemathesis.openapi
from fastapi import FastAPI, HTTPException
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ray import serve as ray_serve
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError
from ray.serve.exceptions import DeploymentUnavailableError, ReplicaUnavailableError
from schemathesis import GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.requests import Request

from benchmarks.simulated_endpoint import SimulatedEndpoint
from cluster.serving.runs import RunService, Settings
from gpo.data.example import Example
from gpo.data.task import Split, Task
from gpo.errors import BudgetExhausted, EvaluationError, ModelUnavailable, OutOfReach, Part
from gpo.evaluation.answer_format import AnswerFormat, Position
from gpo.evaluation.evaluator import Evaluation, LocalEvaluator
from gpo.evaluation.grading import RuleGrader
from gpo.evaluation.metrics.text import ExactScorer
from gpo.models.protocol import Sampling, Usage
from gpo.prompt import Prompt
from gpo.score import Score
from gpo.testing.fakes import FakeModel
from serve.evaluator import UnknownTask, evaluator_app
from serve.http_limits import JSON, MAX_BODY_BYTES, MSGPACK, decode, limited_body
from serve.ingress import build_api
from tests.unit.cluster.serving.requests import posted, posted_task, rows, service_config
from tests.unit.cluster.serving.requests import settings as started_with

TOKEN = "canary-token-90d1"
EXAMPLES = int(os.environ.get("GPO_FUZZ_EXAMPLES", "20"))
AS_BEARER = {"Authorization": f"Bearer {TOKEN}"}


def evaluator() -> LocalEvaluator:
    examples = tuple(Example(f"input {number}", ("yes",)) for number in range(3))
    scorer = ExactScorer()
    task = Task("triage", Prompt("Say yes."), dict.fromkeys(Split, examples), scorer)
    return LocalEvaluator(task, FakeModel(lambda messages, sampling: "yes"), Sampling(), RuleGrader(scorer))


@pytest.fixture(scope="module")
def handle() -> Any:
    app = evaluator_app([evaluator()], replicas=1, examples_at_once=100, cpus=0, drain_s=0)
    return ray_serve.run(app, _local_testing_mode=True)


class ThreadedRuns:
    """A service of runs in an event loop of its own, as in its actor: each request of a test may have another loop."""

    def __init__(self, settings: Settings) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._service = RunService(settings)

    def __getattr__(self, name: str) -> Any:
        async def call(*arguments: Any) -> Any:
            work = getattr(self._service, name)(*arguments)
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

        return call

    def end(self) -> None:
        asyncio.run_coroutine_threadsafe(self._service.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[SimulatedEndpoint]:
    with SimulatedEndpoint() as running:
        yield running


@pytest.fixture(scope="module")
def runs(endpoint: SimulatedEndpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreadedRuns]:
    folder = tmp_path_factory.mktemp("service")
    running = ThreadedRuns(started_with(service_config(endpoint.base_url, folder), folder / "runs"))
    yield running
    running.end()


@pytest.fixture(scope="module")
def api(handle: Any, runs: ThreadedRuns) -> FastAPI:
    return build_api(handle, None, runs)


@pytest.fixture(scope="module")
def guarded(handle: Any, runs: ThreadedRuns) -> FastAPI:
    return build_api(handle, TOKEN, runs)


def client(api: FastAPI) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(api, raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000", trust_env=False)


async def ask(api: FastAPI, method: str, path: str, **settings: Any) -> httpx2.Response:
    async with client(api) as asking:
        return await asking.request(method, path, **settings)


def is_refused_in_the_usual_shape(reply: httpx2.Response) -> bool:
    document = reply.json()
    return reply.status_code >= 400 and list(document) == ["detail"] and isinstance(document["detail"], str)


async def test_prompts_are_scored(api: FastAPI) -> None:
    reply = await ask(api, "POST", "/v1/evaluate", json={"task": "triage", "prompt": "Say yes.", "split": "test"})
    assert reply.status_code == 200, reply.text
    assert reply.json()["scores"][0]["values"] == [1.0] * 3
    assert reply.headers["x-content-type-options"] == "nosniff"


async def test_a_run_is_started_followed_and_stopped(api: FastAPI) -> None:
    body = posted(run={"seeds": [7, 10**30]})
    reply = await ask(api, "POST", "/v1/runs", json=body, headers={"Idempotency-Key": "once"})
    assert reply.status_code == 202, reply.text
    where, run_id = reply.headers["location"], reply.json()["id"]
    assert where == f"/v1/runs/{run_id}"
    as_msgpack = {"Content-Type": MSGPACK, "Accept": MSGPACK, "Idempotency-Key": "once"}
    small = posted(run={"seeds": [7]})
    again = await ask(api, "POST", "/v1/runs", content=msgpack.packb(small), headers=as_msgpack)
    assert (again.status_code, run_id in again.text) == (422, True)
    again = await ask(api, "POST", "/v1/runs", json=body, headers={"Idempotency-Key": "once"})
    assert (again.status_code, again.json()["id"]) == (202, run_id)
    async with asyncio.timeout(60):
        while (status := (await ask(api, "GET", where)).json())["status"] in ("pending", "running"):
            early = await ask(api, "GET", f"{where}/result")
            assert early.status_code in (200, 409), early.text
            await asyncio.sleep(0.05)
    assert (status["status"], status["steps"], len(status["trajectories"])) == ("completed", 2, 2)
    result = (await ask(api, "GET", f"{where}/result")).json()
    assert result["best"]["triage"]["val"] == status["best"]["triage"]
    assert (await ask(api, "DELETE", where)).json() == status  # it has ended
    as_msgpack = {"Accept": MSGPACK}
    listed = msgpack.unpackb((await ask(api, "GET", "/v1/runs", headers=as_msgpack)).content)
    assert listed["runs"] == [{**status, "trajectories": []}]
    assert (await ask(api, "GET", where, headers=as_msgpack)).json() == status  # a seed is too large for msgpack
    for method, path in (("GET", "/v1/runs/other"), ("DELETE", "/v1/runs/other"), ("GET", "/v1/runs/other/result")):
        unknown = await ask(api, method, path)
        assert (unknown.status_code, is_refused_in_the_usual_shape(unknown)) == (404, True)


@pytest.mark.parametrize(
    ("body", "headers", "status", "text"),
    [
        (posted(optimiser={}), {}, 422, "optimiser: is not an option; did you mean 'optimizer'?"),
        (posted(models={"task": {"model": "m", "base_url": "http://evil.test/v1"}}), {}, 422, "models.task.base_url"),
        ({"tasks": []}, {}, 422, "tasks: "),
        ([], {}, 422, "body: "),
        (posted(), {"Idempotency-Key": "x" * 300}, 422, "Idempotency-Key must have"),
        (posted(), {"Content-Type": "text/plain"}, 415, "send application/json"),
        ({**posted(), "note": "x" * 1_000_000}, {}, 413, "larger than"),
        ({"tasks": [[[[[[[[[1]]]]]]]]]}, {}, 400, "nested"),
    ],
)
async def test_runs_that_cannot_be_started_are_refused(
    body: Any, headers: dict[str, str], status: int, text: str, api: FastAPI
) -> None:
    reply = await ask(api, "POST", "/v1/runs", content=json.dumps(body), headers={"Content-Type": JSON, **headers})
    assert (reply.status_code, is_refused_in_the_usual_shape(reply)) == (status, True), reply.text
    assert text in reply.json()["detail"]


async def test_more_examples_than_prompts_fit_into_msgpack(api: FastAPI) -> None:
    body = posted_task(data={"train": rows(1_500, "many")})
    reply = await ask(api, "POST", "/v1/runs", content=msgpack.packb(body), headers={"Content-Type": MSGPACK})
    assert reply.status_code == 202, reply.text
    assert (await ask(api, "DELETE", reply.headers["location"])).status_code == 200


async def test_a_request_is_repeated_while_the_actor_of_the_runs_restarts(
    handle: Any, runs: ThreadedRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.client._WAITS_S", (0.0, 0.0))
    keys: list[str] = []

    class Dying:
        async def submit(self, body: Any, key: str) -> Any:
            keys.append(key)
            document = await runs.submit(body, key)
            if len(keys) < 3:
                raise ActorDiedError  # after the run was accepted
            return document

    reply = await ask(build_api(handle, None, Dying()), "POST", "/v1/runs", json=posted())  # type: ignore[arg-type]
    assert (reply.status_code, len(keys), len(set(keys))) == (202, 3, 1)
    assert len([run for run in await runs.listed() if run["accepted_at"] == reply.json()["accepted_at"]]) == 1
    await ask(build_api(handle, None, runs), "DELETE", reply.headers["location"])


async def test_without_runs_there_are_no_routes_for_them(handle: Any) -> None:
    api = build_api(handle, None)
    assert (await ask(api, "GET", "/v1/runs")).status_code == 404
    assert not [path for path in api.openapi()["paths"] if path.startswith("/v1/runs")]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v1/evaluate", 405),
        ("OPTIONS", "/v1/evaluate", 405),
        ("DELETE", "/v1/tasks", 405),
        ("TRACE", "/health", 405),
        ("GET", "/redoc", 404),
        ("GET", "/" + "x" * 9_000, 414),
        ("GET", "/health?" + "x" * 9_000, 414),
    ],
)
async def test_unknown_paths_and_methods_are_refused_in_one_form(
    method: str, path: str, status: int, api: FastAPI
) -> None:
    reply = await ask(api, method, path)
    assert (reply.status_code, is_refused_in_the_usual_shape(reply)) == (status, True), reply.text
    assert status != 405 or reply.headers["allow"]


@pytest.mark.parametrize("headers", [{f"x-{number}": "y" for number in range(120)}, {"x-large": "y" * 40_000}])
async def test_too_many_headers_are_refused(headers: dict[str, str], api: FastAPI) -> None:
    reply = await ask(api, "GET", "/health", headers=headers)
    assert (reply.status_code, is_refused_in_the_usual_shape(reply)) == (431, True)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *((host, 200) for host in ("localhost", "localhost:80", "127.0.0.1", "127.0.0.2:9", "[::1]:8000", "[::1]")),
        *(
            (host, 403)
            for host in ("evil.test", "evil.test:8000", "127.0.0.1.evil.test", "", "[", "localhost.evil.test")
        ),
    ],
)
async def test_without_a_token_requests_from_browser_pages_are_refused(
    host: str, status: int, api: FastAPI, guarded: FastAPI
) -> None:
    reply = await ask(api, "GET", "/v1/tasks", headers={"Host": host})
    assert (reply.status_code, status == 200 or is_refused_in_the_usual_shape(reply)) == (status, True)
    assert (await ask(guarded, "GET", "/v1/tasks", headers={"Host": host, **AS_BEARER})).status_code == 200
    # Headers of requests that pages may send without a preflight.
    for media in ({}, {"Content-Type": "text/plain"}):
        assert (await ask(api, "POST", "/v1/evaluate", content=b"{}", headers=media)).status_code == 415


class Failing:
    """A fake handle of an evaluator that fails a number of times before it works."""

    def __init__(self, failure: Exception, times: int = 1000) -> None:
        self.failure, self.left, self.num_cancelled = failure, times, 0
        self.evaluate = self.sizes = self

    def remote(self, *arguments: object) -> Failing:
        self.is_for_sizes = not arguments
        return self

    def __await__(self) -> Generator[Any, None, Any]:
        yield from asyncio.sleep(0).__await__()
        if self.left:
            self.left -= 1
            raise self.failure
        return {"triage": {}} if self.is_for_sizes else [Evaluation(Score((1.0,)), Usage())]

    def cancel(self) -> None:
        self.num_cancelled += 1


def raised(cause: Exception) -> Exception:
    """The error as a client of the replica gets it."""
    return RayTaskError("evaluate", "traceback", cause).as_instanceof_cause()


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (raised(BudgetExhausted("budget.calls: 5 are used up")), 402),
        (raised(UnknownTask("other", ["triage"])), 404),
        (raised(ModelUnavailable("no connection")), 502),
        (raised(EvaluationError("too many")), 502),
        (raised(OutOfReach(Part.LIMITER, "no answer")), 503),
        (ActorDiedError(), 503),
        (ActorUnavailableError("no answer", None), 503),
        (ReplicaUnavailableError("gone"), 503),
        (DeploymentUnavailableError("gone"), 503),
        (raised(ZeroDivisionError("nobody foresaw it")), 500),
        (ZeroDivisionError("nobody foresaw it"), 500),
    ],
)
async def test_foreseen_failures_are_not_internal_errors(
    failure: Exception, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.client._WAITS_S", (0.0,))
    failing: Any = Failing(failure)
    api = build_api(failing, None)
    described = api.openapi()["paths"]
    for method, path, body in (("POST", "/v1/evaluate", {"task": "other", "prompt": "x"}), ("GET", "/v1/tasks", None)):
        reply = await ask(api, method, path, json=body)
        assert (reply.status_code, is_refused_in_the_usual_shape(reply)) == (status, True), reply.text
        assert ("retry-after" in reply.headers) is (status == 503)
        assert "traceback" not in reply.text
        assert "nobody foresaw it" not in reply.text
        if status == 503 or (status != 500 and path == "/v1/evaluate"):
            assert str(status) in described[path][method.lower()]["responses"]


async def test_a_request_whose_replica_dies_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.client._WAITS_S", (0.0, 0.0))
    for method, path, body in (("POST", "/v1/evaluate", {"task": "triage", "prompt": "x"}), ("GET", "/v1/tasks", None)):
        failing: Any = Failing(ActorDiedError(), times=2)
        assert (await ask(build_api(failing, None), method, path, json=body)).status_code == 200


async def test_head_is_answered_like_get_without_a_body(api: FastAPI) -> None:
    for path in ("/health", "/v1/tasks", "/openapi.json"):
        reply = await ask(api, "HEAD", path)
        assert (reply.status_code, reply.content) == (200, b"")
        assert int(reply.headers["content-length"]) == len((await ask(api, "GET", path)).content)


async def test_the_page_loads_nothing_from_other_hosts(api: FastAPI, guarded: FastAPI) -> None:
    page = await ask(guarded, "GET", "/docs")
    assert page.status_code == 200
    assert "POST /v1/evaluate" in page.text
    assert page.text.count("Needs a bearer token") == 7
    assert "Needs a bearer token" not in (await ask(api, "GET", "/docs")).text
    assert not re.search(r"<script|https?://|src=|@import|url\(", page.text)
    assert "default-src 'none'" in page.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/tasks"),
        ("POST", "/v1/evaluate"),
        ("POST", "/v1/runs"),
        ("GET", "/v1/runs"),
        ("GET", "/v1/runs/x"),
        ("GET", "/v1/runs/x/result"),
        ("DELETE", "/v1/runs/x"),
    ],
)
@pytest.mark.parametrize(
    "given", [None, TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", "Bearer", ""]
)
async def test_without_the_token_requests_are_refused(
    given: str | None, method: str, path: str, guarded: FastAPI
) -> None:
    headers = {} if given is None else {"Authorization": given}
    reply = await ask(guarded, method, path, content=b"not JSON" if method == "POST" else b"", headers=headers)
    assert (reply.status_code, is_refused_in_the_usual_shape(reply)) == (401, True)
    assert TOKEN not in reply.text


async def test_with_the_token_requests_are_answered(guarded: FastAPI) -> None:
    reply = await ask(guarded, "POST", "/v1/evaluate", json={"task": "triage", "prompt": "x"}, headers=AS_BEARER)
    assert reply.status_code == 200


def request_of(chunks: AsyncIterator[bytes], headers: dict[str, str]) -> Request:
    async def receive() -> dict[str, Any]:
        chunk = await anext(chunks, b"")
        return {"type": "http.request", "body": chunk, "more_body": bool(chunk)}

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "headers": raw}, receive)


async def refusal_of(chunks: AsyncIterator[bytes], headers: dict[str, str] | None = None) -> int:
    with pytest.raises(HTTPException) as caught:
        await limited_body(request_of(chunks, headers or {}), timeout_s=0.1)
    return caught.value.status_code


async def test_a_slow_body_is_refused() -> None:
    async def drip() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.01)

    assert await refusal_of(drip()) == 408


async def test_an_endless_body_is_refused_and_an_announced_one_is_not_read() -> None:
    num_read = 0

    async def pour() -> AsyncIterator[bytes]:
        nonlocal num_read
        while True:
            num_read += 1
            yield b"x" * 100_000

    assert await refusal_of(pour()) == 413
    assert num_read <= MAX_BODY_BYTES // 100_000 + 1
    num_read = 0
    for said in (str(MAX_BODY_BYTES + 1), "9" * 5000):
        assert await refusal_of(pour(), {"content-length": said}) == 413
    assert await refusal_of(pour(), {"content-length": "-1"}) == 400
    assert num_read == 0


def deep(levels: int) -> Any:
    document: Any = "x"
    for _ in range(levels):
        document = [document]
    return document


@pytest.mark.parametrize(
    ("body", "media"),
    [
        (b"[" * 100_000, JSON),
        (json.dumps(deep(9)).encode(), JSON),
        (b'{"a": NaN}', JSON),
        (b"1" * 10_000, JSON),
        (b'{"a": "\xff"}', JSON),
        (msgpack.packb(deep(9)), MSGPACK),
        (b"\x91" * 100_000, MSGPACK),
        (msgpack.packb([0] * 2_000), MSGPACK),
        (msgpack.packb({str(number): 0 for number in range(2_000)}), MSGPACK),
        (b"\xdd\xff\xff\xff\xff", MSGPACK),  # announces 4 billion entries
        (b"\xdb\xff\xff\xff\xff", MSGPACK),
        (b"\xc6\xff\xff\xff\xff", MSGPACK),
        (msgpack.packb(msgpack.ExtType(5, b"x")), MSGPACK),
        (msgpack.packb(msgpack.Timestamp(1)), MSGPACK),
        (msgpack.packb(b"bytes"), MSGPACK),
        (msgpack.packb({1: 2}), MSGPACK),
        (msgpack.packb({}) * 2, MSGPACK),
    ],
)
def test_bodies_beyond_the_limits_are_refused(body: bytes, media: str) -> None:
    with pytest.raises(HTTPException) as caught:
        decode(body, media)
    assert caught.value.status_code == 400


@pytest.mark.parametrize(("prompt", "status"), [("{{x}}? Say yes.", 200), ("Say yes.", 422), ("{{ x.y }}", 422)])
async def test_a_prompt_of_a_template_needs_its_placeholders(prompt: str, status: int) -> None:
    examples = (Example("x: 1", ("yes",), (("{{ x }}", "1"),)),)
    asked = AnswerFormat(Position.TEMPLATE)
    task = Task("template", Prompt("{{ x }}"), dict.fromkeys(Split, examples), ExactScorer(), asked)
    scoring = LocalEvaluator(task, FakeModel(lambda *_: "yes"), Sampling(), RuleGrader(task.scorer))
    app = evaluator_app([scoring], replicas=1, examples_at_once=100, cpus=0, drain_s=0)
    handle = ray_serve.run(app, name="template", route_prefix=None, _local_testing_mode=True)
    reply = await ask(build_api(handle, None), "POST", "/v1/evaluate", json={"task": "template", "prompt": prompt})
    assert reply.status_code == status, reply.text
    assert status == 200 or reply.json()["detail"].startswith("the prompt contains {{ x")


async def test_an_unpaired_surrogate_in_a_field_name_is_reported(api: FastAPI) -> None:
    reply = await ask(
        api, "POST", "/v1/evaluate", content=b'{"task": "triage", "\\ud83d": 1}', headers={"Content-Type": JSON}
    )
    assert (reply.status_code, is_refused_in_the_usual_shape(reply)) == (422, True)


async def test_an_unforeseen_error_does_not_show_its_text() -> None:
    class Broken:
        class sizes:  # noqa: N801
            @staticmethod
            def remote() -> Any:
                raise RuntimeError(f"it holds {TOKEN}")

    reply = await ask(build_api(Broken(), None), "GET", "/v1/tasks")  # type: ignore[arg-type]
    assert (reply.status_code, is_refused_in_the_usual_shape(reply)) == (500, True)
    assert TOKEN not in reply.text


# Fuzzing; GPO_FUZZ_EXAMPLES says how long.

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
fields = st.fixed_dictionaries(
    {},
    optional={
        "task": st.sampled_from(["triage", "nothing"]) | values,
        "split": st.sampled_from(["val", "test"]) | values,
        "prompt": st.text(max_size=20) | values,
        "prompts": st.lists(st.text(max_size=20), max_size=70) | values,
        "more": values,
    },
)


def _as_json(document: Any) -> bytes:
    return json.dumps(document, default=lambda value: value.decode("latin-1")).encode()


def _as_msgpack(document: Any) -> bytes:
    try:
        return bytes(msgpack.packb(document, unicode_errors="surrogatepass"))
    except OverflowError:  # an integer beyond 64 bits
        return b"\xc1"


requests = st.fixed_dictionaries(
    {"task": st.sampled_from(["triage", "nothing"]), "prompt": st.text(min_size=1, max_size=20)},
    optional={"split": st.sampled_from(["val", "test", "other"])},
)
documents = values | fields | requests
bodies = st.binary(max_size=200) | documents.map(_as_json) | documents.map(_as_msgpack)


@pytest.mark.parametrize("path", ["/v1/evaluate", "/v1/runs"])
@settings(max_examples=5 * EXAMPLES, suppress_health_check=list(HealthCheck))
@given(
    body=bodies,
    media=st.sampled_from([JSON, MSGPACK, f"{JSON}; charset=utf-16"]) | st.text("abc/;=", max_size=20),
    accept=st.sampled_from([JSON, MSGPACK, "*/*", ""]),
)
def test_any_body_is_answered_or_refused(path: str, body: bytes, media: str, accept: str, api: FastAPI) -> None:
    reply = asyncio.run(ask(api, "POST", path, content=body, headers={"Content-Type": media, "Accept": accept}))
    assert reply.status_code < 500, (body, reply.text)
    assert reply.status_code == 200 or is_refused_in_the_usual_shape(reply)


def changed(document: Any, path: list[int], value: Any) -> Any:
    """The document with another value at a place: each number of the path chooses an entry."""
    entries = (
        list(document) if isinstance(document, dict) else range(len(document)) if isinstance(document, list) else []
    )
    if not path or not entries:
        return value
    chosen = entries[path[0] % len(entries)]
    below = changed(document[chosen], path[1:], value)
    if isinstance(document, dict):
        return {**document, chosen: below}
    return [below if index == chosen else entry for index, entry in enumerate(document)]


@settings(max_examples=5 * EXAMPLES, suppress_health_check=list(HealthCheck))
@given(path=st.lists(st.integers(0, 20), max_size=6), value=values, as_msgpack=st.booleans())
def test_any_configuration_is_started_or_refused(path: list[int], value: Any, as_msgpack: bool, api: FastAPI) -> None:
    known = posted(
        models={"task": {"model": "task-model", "sampling": {}}, "optimizer": {"model": "o"}},
        budget={"calls": 1},
        stop={"patience": 1},
        evaluation={"scoring": {"kind": "full"}},
    )
    document = changed(known, path, value)
    body, media = (_as_msgpack(document), MSGPACK) if as_msgpack else (_as_json(document), JSON)
    reply = asyncio.run(ask(api, "POST", "/v1/runs", content=body, headers={"Content-Type": media}))
    assert reply.status_code < 500, (document, reply.text)
    assert reply.status_code == 202 or is_refused_in_the_usual_shape(reply)


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("is_guarded", [False, True])
def test_the_interface_matches_its_openapi_schema(
    is_guarded: bool, mode: GenerationMode, api: FastAPI, guarded: FastAPI
) -> None:
    asked = guarded if is_guarded else api
    schema = schemathesis.openapi.from_asgi("/openapi.json", asked, headers={"Host": "localhost"})
    checks = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
    statuses = Counter[int]()
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode), with_token=st.booleans())
        def check(case: schemathesis.Case, with_token: bool) -> None:
            headers = {"Host": "localhost", **(AS_BEARER if with_token else {})}
            reply = case.call_and_validate(headers=headers, checks=checks)
            statuses[reply.status_code] += 1

        if mode is GenerationMode.POSITIVE or operation.body:
            check()
    print(f"{statuses.total()} requests: {dict(statuses)}")  # shown by -rP
    assert statuses.total() >= EXAMPLES
    assert (statuses[401] > 0) is is_guarded
