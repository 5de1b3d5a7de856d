"""A program of the user in place of a single call: it gets the prompts, an example and a client, and answers.

The client is an ``openai`` client whose requests do not leave the process as they are: they pass the completion cache,
the limits, the budget and the retries of the configured models, and are counted like all other calls.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import httpx2
import openai

from gpo.data.example import Example
from gpo.errors import AnswerError, EvaluationError, GPOError, ModelRefused, ModelUnavailable, RefusalReason
from gpo.models.protocol import Forwarded, ForwardingModel, Usage, given_up
from gpo.process import PicklesFieldsOnly
from gpo.prompt import Prompt, parts_of
from gpo.text import abridged, without_controls
from gpo.user_functions import FunctionReference, shown_error

log = logging.getLogger(__name__)

_EXAMPLE_HEADER = "x-gpo-example"
_SHOWN = 400
"""Characters of each reply that a trace shows."""
_OF_ANSWERS = (ValueError, LookupError, AnswerError)
"""Errors that a model's answer can cause: JSON that is none, a missing field, a tool of no such name."""
_STATUS = {RefusalReason.KEY: 401, RefusalReason.CREDIT: 402, RefusalReason.MODEL: 404}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a program may return in place of a text.

    Attributes:
        text: the answer, which is graded.
        trace: how the program came to it, for the optimizer model; the model calls are known without it.
    """

    text: str
    trace: str = ""


@dataclass(frozen=True, slots=True)
class ProgramSpec:
    """A program, without the models that it calls.

    Attributes:
        function: ``answer(prompts, example, client)``, async or not.
        names: the names of its prompts, in order; ``("prompt",)`` for a single one.
        max_seconds: bound on one example, in seconds.
        hidden: columns that hold the right answer.
    """

    function: FunctionReference
    names: tuple[str, ...] = ("prompt",)
    max_seconds: float = 120.0
    hidden: tuple[str, ...] = ()

    def example(self, example: Example) -> dict[str, Any]:
        """What the program sees of an example: its columns, without those of the target."""
        row = {name: value for name, value in example.row.items() if name not in self.hidden}
        return row or {"input": example.input}

    def problem(self, prompt: Prompt) -> str | None:
        """Why the program cannot run with a prompt, in words that follow "the prompt"; ``None`` if it can."""
        try:
            self.prompts(prompt)
        except KeyError as error:
            return str(error.args[0]).removeprefix("the prompt ")
        return None

    def prompts(self, prompt: Prompt) -> dict[str, str]:
        """Name → text.

        Raises:
            KeyError: the prompt has other parts.
        """
        if self.names == ("prompt",):
            return {"prompt": prompt.text}
        parts = parts_of(prompt.text)
        if tuple(parts) != self.names:
            raise KeyError(f"the prompt has the parts {', '.join(parts) or 'none'}, not {', '.join(self.names)}")
        return parts


@dataclass(frozen=True, slots=True)
class Call:
    """A model call of a program.

    Attributes:
        part: the name of the prompt whose text the request contains; empty if it contains none.
        request, reply: as the OpenAI API has them.
        seconds: until the reply.
    """

    part: str
    request: Mapping[str, Any]
    reply: Mapping[str, Any]
    usage: Usage
    seconds: float

    def __str__(self) -> str:
        return f"[{self.part or 'call'}] {abridged(_said(self.reply), _SHOWN)}"


@dataclass(frozen=True, slots=True)
class Response:
    """What became of one example.

    Attributes:
        text: the trace and the answer, for people and the optimizer model.
        answer: what is graded; ``None`` if there is no answer.
        problem: why the example stays unscored, else empty.
        is_refused: whether an endpoint refused a request, rather than being unavailable.
        fault: why there is no answer that could be right, in words; the example scores 0. Else empty.
    """

    text: str
    answer: str | None
    usage: Usage
    problem: str = ""
    is_refused: bool = False
    fault: str = ""
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True, slots=True)
class OfferedModel:
    """A model that programs can call.

    Attributes:
        defaults: fields of a conversation's request that the program leaves out, such as ``temperature``.
    """

    model: ForwardingModel
    defaults: Mapping[str, Any]


@dataclass(frozen=True)
class Program(PicklesFieldsOnly):
    """A program and the models that it may call.

    Args:
        models: the name of a model in requests → the model. The first one answers requests for ``task``.
    """

    spec: ProgramSpec
    models: Mapping[str, OfferedModel]

    async def respond(self, prompt: Prompt, example: Example) -> Response:
        """Run the program on an example.

        Raises:
            EvaluationError: the program has a bug: it failed before any model replied, or with an error that no answer
                causes, or returned something else than an answer.
            ModelRefused: an endpoint refuses every call.
            BudgetExhausted, OutOfReach: as for every model call.
        """
        function, recorder = self.spec.function.load(), _Recorder(self.spec.prompts(prompt))
        identity = f"{next(self._numbers)}"
        self._recorders[identity] = recorder
        try:
            async with asyncio.timeout(self.spec.max_seconds) as limit:
                returned = await self._called(function, example, recorder, identity)
        except (Exception, SystemExit) as error:
            recorder.raise_fatal()
            if isinstance(error, TimeoutError) and limit.expired():
                seconds = self.spec.max_seconds
                return recorder.unscored(f"the program took longer than program.max_seconds ({seconds:g} s)")
            return self._failed(error, recorder)
        finally:
            del self._recorders[identity]
        recorder.raise_fatal()
        if recorder.problem:  # the program went on without a reply: its answer says nothing about the prompts
            return recorder.unscored(recorder.problem)
        return recorder.answered(self._text(returned))

    async def _called(self, function: Callable[..., Any], example: Example, recorder: _Recorder, identity: str) -> Any:
        headers = {_EXAMPLE_HEADER: identity}
        arguments = (dict(recorder.prompts), self.spec.example(example))
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
            return await function(*arguments, self._client.with_options(default_headers=headers))
        loop = asyncio.get_running_loop()
        self._sync_transport.loop = loop
        client, outcome = self._sync_client.with_options(default_headers=headers), loop.create_future()

        def work() -> None:
            # Not a pool: threads of programs that hang would be missing there.
            try:
                value, error = function(*arguments, client), None
            except BaseException as raised:
                value, error = None, raised
            loop.call_soon_threadsafe(_settle, outcome, value, error)

        threading.Thread(target=copy_context().run, args=(work,), name="program", daemon=True).start()
        returned = await outcome
        return await returned if inspect.isawaitable(returned) else returned

    def _failed(self, error: BaseException, recorder: _Recorder) -> Response:
        if recorder.problem:
            return recorder.unscored(recorder.problem)
        if isinstance(error, AnswerError) or (recorder.calls and isinstance(error, _OF_ANSWERS)):
            return recorder.faulty(f"{type(error).__name__}: {error}")
        raise EvaluationError(f"the program {self.spec.function} failed: {shown_error(error)}") from None

    def _text(self, returned: Any) -> Answer:
        if isinstance(returned, Answer):
            return returned
        if isinstance(returned, str | int | float):
            return Answer(str(returned))
        raise EvaluationError(
            f"the program {self.spec.function} returned a {type(returned).__name__}, not a text or a gpo.Answer"
        )

    async def forwarded(self, route: str, body: Mapping[str, Any], recorder: _Recorder | None) -> Forwarded:
        """Send a request of the program to the model that it names.

        Raises:
            ModelRefused: no model has this name, or its endpoint refuses the request.
            ModelUnavailable: as for every model call.
        """
        name = str(body.get("model") or "task")
        offered = next(iter(self.models.values())) if name == "task" else self.models.get(name)
        if offered is None:
            known = ", ".join(dict.fromkeys(["task", *self.models]))
            raise ModelRefused(f"there is no model {name!r}; the models are: {known}", RefusalReason.REQUEST)
        began = time.monotonic()
        if route == "/chat/completions":
            bounds = {"max_tokens", "max_completion_tokens"}
            unset = {one for one in offered.defaults if not (one in bounds and bounds & body.keys())}
            body = {**{one: offered.defaults[one] for one in unset}, **body}
        try:
            reply = await offered.model.forward(route, body)
        except (ModelUnavailable, ModelRefused) as failure:
            if recorder is not None:
                recorder.usage += given_up(failure)
            raise
        if recorder is not None:
            recorder.add(body, reply, time.monotonic() - began)
        return reply

    @cached_property
    def _numbers(self) -> Iterator[int]:
        return itertools.count()

    @cached_property
    def _recorders(self) -> dict[str, _Recorder]:
        """The examples in work."""
        return {}

    @cached_property
    def _client(self) -> openai.AsyncOpenAI:
        http = httpx2.AsyncClient(transport=_Transport(self))
        return openai.AsyncOpenAI(base_url=_ADDRESS, api_key="-", max_retries=0, http_client=http)

    @cached_property
    def _sync_transport(self) -> _SyncTransport:
        return _SyncTransport(self)

    @cached_property
    def _sync_client(self) -> openai.OpenAI:
        http = httpx2.Client(transport=self._sync_transport)
        return openai.OpenAI(base_url=_ADDRESS, api_key="-", max_retries=0, http_client=http)

    async def reply_to(self, request: httpx2.Request, content: bytes) -> httpx2.Response:
        """The HTTP reply to a request of the client."""
        recorder = self._recorders.get(request.headers.get(_EXAMPLE_HEADER, ""))
        try:
            body = json.loads(content)
        except ValueError:
            body = None
        route = "/" + request.url.path.partition("/v1/")[2]
        if route not in _ROUTES or not isinstance(body, dict):
            return _error(404, f"the client offers {', '.join(_ROUTES)} with a JSON body, not {route}")
        streams = body.pop("stream", False)
        body.pop("stream_options", None)
        try:
            reply = await self.forwarded(route, body, recorder)
        except GPOError as failure:
            if recorder is not None:
                recorder.note(failure)
            status = _STATUS.get(failure.reason, 400) if isinstance(failure, ModelRefused) else 503
            return _error(status, str(failure))
        if streams and route == "/chat/completions":
            return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=_streamed(reply.body))
        return httpx2.Response(200, json=dict(reply.body))


_ADDRESS = "http://models.invalid/v1"
"""No request is ever sent there: the transport answers."""
_ROUTES = ("/chat/completions", "/embeddings")


@dataclass
class _Recorder:
    """What happens while a program works on one example."""

    prompts: Mapping[str, str]
    calls: list[Call] = field(default_factory=list[Call])
    usage: Usage = field(default_factory=Usage)
    problem: str = ""
    is_refused: bool = False
    fatal: GPOError | None = None

    def add(self, request: Mapping[str, Any], reply: Forwarded, seconds: float) -> None:
        """Record a call that was answered."""
        sent = json.dumps(request.get("messages", request.get("input", "")), ensure_ascii=False)
        part = next(
            (name for name, text in self.prompts.items() if json.dumps(text, ensure_ascii=False)[1:-1] in sent), ""
        )
        self.calls.append(Call(part, request, reply.body, reply.usage, seconds))
        self.usage += reply.usage

    def note(self, failure: GPOError) -> None:
        """Record a call that was not answered."""
        if isinstance(failure, ModelUnavailable):
            self.problem = self.problem or str(failure)
        elif isinstance(failure, ModelRefused) and not failure.reason.concerns_every_call:
            self.problem, self.is_refused = self.problem or str(failure), True
        else:
            self.fatal = self.fatal or failure

    def raise_fatal(self) -> None:
        """Raise the error that every other call would meet, too, if there was one."""
        if self.fatal is not None:
            raise self.fatal

    def answered(self, answer: Answer) -> Response:
        text = self._text(f"The answer: {answer.text}", answer.trace)
        return Response(text, answer.text, self.usage, calls=tuple(self.calls))

    def unscored(self, problem: str) -> Response:
        return Response(self._text(), None, self.usage, problem, self.is_refused, calls=tuple(self.calls))

    def faulty(self, fault: str) -> Response:
        fault = without_controls(fault)
        return Response(
            self._text(f"The program failed: {fault}"), None, self.usage, fault=fault, calls=tuple(self.calls)
        )

    def _text(self, *last: str) -> str:
        return "\n".join([*map(str, self.calls), *filter(None, last)])


class _Transport(httpx2.AsyncBaseTransport):
    """Answers the requests of an async client in this process."""

    def __init__(self, program: Program) -> None:
        self._program = program

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return await self._program.reply_to(request, await request.aread())


class _SyncTransport(httpx2.BaseTransport):
    """Answers the requests of a client in a thread, in the event loop of the evaluator."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self.loop: asyncio.AbstractEventLoop | None = None

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if self.loop is None:
            raise RuntimeError("no program is running")
        work = self._program.reply_to(request, request.read())
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()


def _settle(outcome: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if outcome.done():  # it took too long
        return
    if error is None:
        outcome.set_result(value)
    elif isinstance(error, Exception):
        outcome.set_exception(error)
    else:  # SystemExit, for example, which a future cannot hold without ending the loop
        outcome.set_exception(EvaluationError(f"{type(error).__name__}: {error}"))


def _error(status: int, message: str) -> httpx2.Response:
    return httpx2.Response(status, json={"error": {"message": message, "type": "gpo", "code": status}})


def _streamed(body: Mapping[str, Any]) -> bytes:
    """A whole reply as a stream of one chunk."""
    choices = []
    for choice in body.get("choices", []):
        message = dict(choice.get("message") or {})
        if calls := message.get("tool_calls"):
            message["tool_calls"] = [{**call, "index": index} for index, call in enumerate(calls)]
        choices.append(
            {"index": choice.get("index", 0), "delta": message, "finish_reason": choice.get("finish_reason")}
        )
    chunk = {**body, "object": "chat.completion.chunk", "choices": choices}
    return f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode()


def _said(reply: Mapping[str, Any]) -> str:
    """What a model replied, in words."""
    choices: Sequence[Any] = reply.get("choices") or ()
    if not choices:
        return "(no text)"
    message = choices[0].get("message") or {}
    calls = [call.get("function", {}) for call in message.get("tool_calls") or ()]
    called = [f"calls {call.get('name')}({call.get('arguments')})" for call in calls]
    return without_controls("; ".join(filter(None, [message.get("content") or "", *called]))) or "(no text)"
