"""The HTTP service of the simulated endpoint: limits, injected faults and the access log."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, TypeVar

from aiohttp import web

from benchmarks.simulated.bad_replies import RETRY_SUCCEEDS, BadReply, choose_kind, make_bad, send, spellings
from benchmarks.simulated.hashing import integer, uniform
from benchmarks.simulated.models import embed, generated
from benchmarks.simulated.modes import FOR_PROPOSALS, Answer, Asked, Mode, altered, answer_instead
from benchmarks.simulated.optimizer_requests import read_assignment
from benchmarks.simulated.protocol import (
    ChatRequest,
    Choice,
    EmbeddingRequest,
    Refusal,
    chat_body,
    cut,
    embedding_body,
    models_body,
    parse_body,
    parse_chat,
    parse_embedding,
)
from gpo.models.protocol import Message

_Request = TypeVar("_Request", ChatRequest, EmbeddingRequest)

# Created once, since ``json.dumps`` with options creates an encoder for every call.
_sorted_json = json.JSONEncoder(sort_keys=True).encode

_JSON = {"Content-Type": "application/json"}
_CHAT = "/v1/chat/completions"

CLIENT_GONE = 499
"""The recorded status of a request whose client disconnected before the reply."""


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """How the endpoint behaves. Durations are in seconds, rates are shares of requests in [0, 1].

    Attributes:
        latency_s: time before every chat and embedding reply.
        latency_per_token_s: additional time for each word of a chat reply (of its longest choice).
        limit: chat and embedding requests served at once; further ones get status 429. ``None`` is no limit.
        retry_after_s: ``Retry-After`` of these refusals.
        error_rate: share of chat requests that get ``error_status``. Depends on the content and on how often it was
            sent before, so a retry succeeds sooner or later.
        error_status: status of injected errors.
        fail_next: number of chat requests that get ``error_status`` after this behaviour is set.
        hang_rate: share of chat requests that are never answered; chosen like the errors.
        malformed_rate: share of the optimizer model's replies without a prompt.
        bad_replies: kind → share of chat requests with such a reply, at most 1 in total. Depends on the content, and
            for kinds after which a retry succeeds also on how often it was sent before.
        repeats_key: whether error messages quote the request's ``Authorization`` header, as some servers do, in every
            spelling that JSON allows.
        seed: determines all pseudo-random choices.
        api_key: the bearer token required everywhere except on ``/health``; ``None`` requires none.
        models: model names that the endpoint accepts; each name serves every kind of request.
        list_models: whether ``GET /v1/models`` exists.
        mode: something that real endpoints do differently.
        mode_of: the models that it concerns; all if empty.
        error_body: JSON or text for ``Mode.SAYS``.
        calls_per_key: for ``Mode.KEY_EXPIRES``.
    """

    latency_s: float = 0.0
    latency_per_token_s: float = 0.0
    limit: int | None = None
    retry_after_s: float = 1.0
    error_rate: float = 0.0
    error_status: int = 500
    fail_next: int = 0
    hang_rate: float = 0.0
    malformed_rate: float = 0.0
    bad_replies: Mapping[BadReply, float] = field(default_factory=dict[BadReply, float])
    repeats_key: bool = False
    seed: int = 0
    api_key: str | None = field(default=None, repr=False)
    models: tuple[str, ...] = ("task-model", "opt-model", "embed-model")
    list_models: bool = True
    mode: Mode | None = None
    mode_of: tuple[str, ...] = ()
    error_body: Any = ""
    calls_per_key: int = 50


@dataclass(frozen=True, slots=True)
class AccessRecord:
    """One finished request.

    Attributes:
        model: the requested model; empty if the request is invalid or names none.
        status: of the reply; 499 if the client disconnected before it.
        in_flight: chat and embedding requests in flight when this one arrived, including it.
        started_s, finished_s: on the system's monotonic clock.
        content: hash of the request's body: equal for equal model, messages and sampling, in any order.
        prompt_tokens, completion_tokens: words; 0 if the request failed.
        bad: the kind of bad reply; empty for a good one.
    """

    path: str
    model: str
    status: int
    in_flight: int
    started_s: float
    finished_s: float
    content: str
    prompt_tokens: int
    completion_tokens: int
    bad: str = ""


@dataclass(slots=True)
class _Call:
    """The facts about a request, collected while it is served."""

    started_s: float
    model: str = ""
    content: str = ""
    in_flight: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    messages: tuple[Message, ...] = ()
    bad: str = ""


class Service:
    """Answers requests; all its state belongs to one event loop.

    Args:
        on_request: called with the record of each finished request except health checks.
    """

    def __init__(self, behaviour: Behaviour, on_request: Callable[[AccessRecord], None]) -> None:
        self._on_request = on_request
        self._in_flight = 0
        self._num_requests = 0
        self._attempts = Counter[str]()
        self._unseeded = Counter[str]()
        self._bad = Counter[str]()
        self._asked = Counter[str]()
        self._first_key: str | None = None
        self._routes = {
            "/v1/models": ("GET", self._models),
            _CHAT: ("POST", self._chat),
            "/v1/embeddings": ("POST", self._embeddings),
        }
        self.set(behaviour)

    def set(self, behaviour: Behaviour) -> None:
        """Change the behaviour with the next request; counts of earlier requests with equal content are kept."""
        self.behaviour = behaviour
        self._left_to_fail = behaviour.fail_next

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        path, call, status = request.path, _Call(monotonic()), CLIENT_GONE
        if path == "/health":
            return _json({"status": "ok", "requests": self._num_requests, "in_flight": self._in_flight})
        try:
            response = await self._reply(request, path, call)
            status = response.status
        except Refusal as refusal:
            status = refusal.status
            sent = spellings(request.headers.get("Authorization", "")) if self.behaviour.repeats_key else ()
            quoted = "".join(f" {spelling}" for spelling in sent)
            response = _json(refusal.body(quoted), status)
            if refusal.retry_after_s is not None:
                response.headers["Retry-After"] = f"{refusal.retry_after_s:g}"
        finally:
            self._num_requests += 1
            self._on_request(_record(path, call, status))
        return response

    async def _reply(self, request: web.BaseRequest, path: str, call: _Call) -> web.StreamResponse:
        method, serve = self._routes.get(path, ("", None))
        if serve is None:
            raise Refusal(404, "unknown_url", f"unknown request URL: {request.method} {path}")
        if request.method != method:
            raise Refusal(405, "method_not_allowed", f"use {method} on {path}, not {request.method}")
        key = self.behaviour.api_key
        if key is not None and request.headers.get("Authorization") != f"Bearer {key}":
            raise Refusal(401, "invalid_api_key", "the API key is wrong or missing")
        if self.behaviour.mode is not None:
            return await self._in_mode(self.behaviour.mode, request, call, serve)
        body = await serve(await request.read(), call)
        return _json(body) if path != _CHAT else await self._possibly_bad(request, body, call)

    async def _in_mode(
        self, mode: Mode, request: web.BaseRequest, call: _Call, serve: Callable[[bytes, _Call], Awaitable[Any]]
    ) -> web.StreamResponse:
        """The reply of an endpoint that does something differently."""
        raw = await request.read()
        body = parse_body(raw) if raw else {}
        model, authorization = str(body.get("model", "")), request.headers.get("Authorization", "")
        self._first_key = self._first_key or authorization
        content = f"{integer(_sorted_json(body)):016x}"
        is_proposal = "messages" in body and read_assignment(parse_chat({**body, "stream": False}).messages) is not None
        kind = f"proposals of {model}" if is_proposal and mode in FOR_PROPOSALS else request.path
        is_first_key = authorization == self._first_key
        asked = Asked(
            request.path,
            model,
            body,
            self._asked[kind],
            self._asked[content],
            is_proposal,
            is_first_key,
            self.behaviour,
        )
        self._asked.update((kind, content))
        concerns = model in self.behaviour.mode_of or not self.behaviour.mode_of
        instead = answer_instead(mode, asked) if concerns else None
        if instead is not None:
            call.model, call.content = model, content
            return instead.response()
        plain = json.dumps(
            {name: value for name, value in body.items() if name != "stream" and name != "stream_options"}
        )
        reply = await serve(plain.encode(), call)
        return (altered(mode, asked, reply) if concerns else Answer(200, reply)).response()

    async def _possibly_bad(self, request: web.BaseRequest, body: dict[str, Any], call: _Call) -> web.StreamResponse:
        """The reply to a chat request: good, or of the kind of bad reply chosen for it."""
        behaviour = self.behaviour
        asked = read_assignment(call.messages) if behaviour.bad_replies else None
        failed, new_prompt = self._bad[call.content], asked is not None
        kind = choose_kind(behaviour.bad_replies, behaviour.seed, call.content, failed, new_prompt=new_prompt)
        if kind is None:
            return _json(body)
        call.bad = kind
        self._bad[call.content] += kind in RETRY_SUCCEEDS
        authorization = request.headers.get("Authorization", "")
        return await send(kind, make_bad(kind, body, asked.current if asked else None, authorization), request)

    async def _models(self, _: bytes, call: _Call) -> dict[str, Any]:
        del call
        if not self.behaviour.list_models:
            raise Refusal(404, "unknown_url", "this endpoint does not list its models")
        return models_body(self.behaviour.models)

    async def _chat(self, raw: bytes, call: _Call) -> dict[str, Any]:
        behaviour = self.behaviour
        request = self._parsed(raw, call, parse_chat)
        self._admit(call)
        try:
            await self._fail_on_purpose(call.content)
            repetition = self._repetition(request, call.content)
            seed, malformed_rate = behaviour.seed, behaviour.malformed_rate
            choices = [
                cut(generated(request, seed, malformed_rate, index, repetition), request) for index in range(request.n)
            ]
            await _wait(behaviour.latency_s + behaviour.latency_per_token_s * max(choice.tokens for choice in choices))
        finally:
            self._in_flight -= 1
        call.messages = request.messages
        call.prompt_tokens, call.completion_tokens = request.prompt_tokens, _num_tokens(choices)
        return chat_body(request, choices, call.content)

    def _repetition(self, request: ChatRequest, content: str) -> int:
        """How often this request came before, if a model would sample again: with a temperature and without a seed."""
        if request.seed is not None or request.temperature == 0:
            return 0
        before = self._unseeded[content]
        self._unseeded[content] = before + 1
        return before

    async def _embeddings(self, raw: bytes, call: _Call) -> dict[str, Any]:
        request = self._parsed(raw, call, parse_embedding)
        self._admit(call)
        try:
            await _wait(self.behaviour.latency_s)
        finally:
            self._in_flight -= 1
        call.prompt_tokens = request.prompt_tokens
        return embedding_body(request, [embed(text) for text in request.texts])

    def _parsed(self, raw: bytes, call: _Call, parse: Callable[[dict[str, Any]], _Request]) -> _Request:
        body = parse_body(raw)
        request = parse(body)
        call.model = request.model
        call.content = f"{integer(_sorted_json(body)):016x}"
        if request.model not in self.behaviour.models:
            raise Refusal(404, "model_not_found", f"the model `{request.model}` does not exist")
        return request

    def _admit(self, call: _Call) -> None:
        behaviour = self.behaviour
        call.in_flight = self._in_flight + 1
        if behaviour.limit is not None and call.in_flight > behaviour.limit:
            message = f"rate limit reached: {behaviour.limit} requests at once; try again later"
            raise Refusal(429, "rate_limit_exceeded", message, behaviour.retry_after_s)
        self._in_flight = call.in_flight

    async def _fail_on_purpose(self, content: str) -> None:
        """Inject an error or hang. Only admitted attempts count, so that faults do not depend on the load."""
        behaviour = self.behaviour
        if self._left_to_fail > 0:
            self._left_to_fail -= 1
            raise Refusal(behaviour.error_status, "injected_error", "the endpoint fails on purpose")
        if not (behaviour.error_rate or behaviour.hang_rate):
            return
        attempt = self._attempts[content]
        self._attempts[content] = attempt + 1
        if uniform(behaviour.seed, "hang", content, attempt) < behaviour.hang_rate:
            await asyncio.Event().wait()
        if uniform(behaviour.seed, "error", content, attempt) < behaviour.error_rate:
            raise Refusal(behaviour.error_status, "injected_error", "the endpoint fails on purpose")


def _num_tokens(choices: list[Choice]) -> int:
    return sum(choice.tokens for choice in choices)


async def _wait(duration_s: float) -> None:
    if duration_s > 0:
        await asyncio.sleep(duration_s)


def _json(body: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(body=json.dumps(body).encode(), status=status, headers=_JSON)


def _record(path: str, call: _Call, status: int) -> AccessRecord:
    return AccessRecord(
        path=path,
        model=call.model,
        status=status,
        in_flight=call.in_flight,
        started_s=call.started_s,
        finished_s=monotonic(),
        content=call.content,
        prompt_tokens=call.prompt_tokens,
        completion_tokens=call.completion_tokens,
        bad=call.bad,
    )
