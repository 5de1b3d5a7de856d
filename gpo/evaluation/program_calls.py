"""The model calls of a user's programs: which models they can name, what is recorded, and how they are sent.

A request never leaves the process as it is. It passes the completion cache, the limits, the budget and the retries of
the configured models, and is counted like all other calls.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext, suppress
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from gpo.errors import (
    AnswerError,
    BudgetExhausted,
    EvaluationError,
    GPOError,
    ModelRefused,
    ModelUnavailable,
    RefusalReason,
)
from gpo.evaluation.program_function import Answer
from gpo.models.adapting import LIMIT_FIELDS
from gpo.models.protocol import Forwarded, ForwardingModel, Usage, given_up
from gpo.runtime.context import current_caller
from gpo.text import abridged, without_controls

if TYPE_CHECKING:
    import httpx2

log = logging.getLogger(__name__)

_T = TypeVar("_T")

EXAMPLE_HEADER = "x-gpo-example"
"""The header of a request that names the example which it is for."""
_SHOWN = 400
"""Characters of each reply that a trace shows."""
_KEPT = 4_000
"""Characters of each message and reply that a record keeps."""
_STATUS = {RefusalReason.KEY: 401, RefusalReason.CREDIT: 402, RefusalReason.MODEL: 404}
_ROUTES = ("/chat/completions", "/embeddings")


@dataclass(frozen=True, slots=True)
class OfferedModel:
    """A model that programs can call.

    Attributes:
        defaults: fields of a conversation's request that the program leaves out, such as ``temperature``.
        refused: those of them that the endpoint refuses, as far as this process knows.
    """

    model: ForwardingModel
    defaults: Mapping[str, Any]
    refused: set[str] = field(default_factory=set[str], compare=False)

    def added_to(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """What is added to a conversation's request: the defaults that the endpoint accepts.

        ``max_tokens`` and ``max_completion_tokens`` take each other's place.
        """
        added = {name: value for name, value in self.defaults.items() if name not in {*body, *self.refused}}
        if any(name in body for name in LIMIT_FIELDS):
            return {name: value for name, value in added.items() if name not in LIMIT_FIELDS}
        limit = next((self.defaults[name] for name in LIMIT_FIELDS if name in self.defaults), None)
        other = next((name for name in LIMIT_FIELDS if name not in self.refused), None)
        if limit is not None and other is not None and not any(name in added for name in LIMIT_FIELDS):
            added[other] = limit
        return added


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

    def record(self) -> CallRecord:
        """What a file keeps of the call: long texts lose their middle."""
        sent = self.request.get("messages")
        turns = [
            (str(turn.get("role", "")), _in_words(turn)) if isinstance(turn, Mapping) else ("", _in_words(turn))
            for turn in (sent if isinstance(sent, list) else [self.request.get("input", "")])
        ]
        kept = tuple((role, _kept(text)) for role, text in turns)
        usage = self.usage
        tokens = usage.prompt_tokens + usage.completion_tokens + usage.cached_tokens
        return CallRecord(self.part, kept, _kept(_said(self.reply)), tokens, round(self.seconds, 3))

    def __str__(self) -> str:
        return f"[{self.part or 'call'}] {abridged(_said(self.reply), _SHOWN)}"


@dataclass(frozen=True, slots=True)
class CallRecord:
    """A model call of a program, as it is recorded.

    Attributes:
        part: the name of the prompt that was sent; empty if none was.
        sent: role and text of each message; of embeddings, the inputs without a role.
        reply: in words, with the calls of tools.
        tokens: sent and generated.
        seconds: until the reply.
    """

    part: str
    sent: tuple[tuple[str, str], ...]
    reply: str
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Response:
    """What became of one example.

    Attributes:
        text: the trace and the answer, for people and the optimizer model.
        answer: what is graded; ``None`` if there is no answer.
        problem: why the example stays unscored, else empty.
        is_refused: whether an endpoint refused a request, rather than being unavailable.
        fault: why there is no answer that could be right, in words; the example scores 0. Else empty.
        score: of the answer, if the program scores it itself, in [0, 1].
        reason: why the program's score is below 1; may be empty.
    """

    text: str
    answer: str | None
    usage: Usage
    problem: str = ""
    is_refused: bool = False
    fault: str = ""
    calls: tuple[Call, ...] = ()
    score: float | None = None
    reason: str = ""


@dataclass
class Recorder:
    """What happens while a program works on one example."""

    prompts: Mapping[str, str]
    calls: list[Call] = field(default_factory=list[Call])
    usage: Usage = field(default_factory=Usage)
    problem: str = ""
    is_refused: bool = False
    fatal: GPOError | None = None
    fault: str = ""
    """Why the example scores 0, whatever the program answers."""
    num_requests: int = 0
    max_requests: int | None = None
    limit: asyncio.Timeout | None = None
    """Bounds the program's own time."""
    _num_waiting: int = field(default=0, init=False)
    _left_s: float = field(default=0.0, init=False)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While a model is called, the program's own time stands still: the call may wait for its turn, for minutes."""
        limit, loop = self.limit, asyncio.get_running_loop()
        if limit is None:
            yield
            return
        self._num_waiting += 1
        if self._num_waiting == 1 and (when := limit.when()) is not None:
            self._left_s = when - loop.time()
            with suppress(RuntimeError):  # the time is over, and the program makes a last call while it ends
                limit.reschedule(None)
        try:
            yield
        finally:
            self._num_waiting -= 1
            if self._num_waiting == 0:
                with suppress(RuntimeError):  # the example has ended meanwhile
                    limit.reschedule(loop.time() + self._left_s)

    def add(self, request: Mapping[str, Any], reply: Forwarded, seconds: float) -> None:
        """Record a call that was answered."""
        sent = json.dumps(request.get("messages", request.get("input", "")), ensure_ascii=False)
        texts = {name: json.dumps(text, ensure_ascii=False)[1:-1] for name, text in self.prompts.items() if text}
        # A text may be contained in another one, which is then the one that was used.
        part = max((name for name, text in texts.items() if text in sent), key=lambda one: len(texts[one]), default="")
        self.calls.append(Call(part, request, reply.body, reply.usage, seconds))
        self.usage += reply.usage

    def note(self, failure: GPOError) -> None:
        """Record a call that was not answered."""
        if isinstance(failure, AnswerError):
            self.fault = self.fault or str(failure)
            return
        is_refused = isinstance(failure, ModelRefused) and not failure.reason.concerns_every_call
        if not is_refused and not isinstance(failure, ModelUnavailable):
            self.fatal = self.fatal or failure
        elif not self.problem:
            self.problem, self.is_refused = str(failure), is_refused

    def restart(self) -> None:
        """Forget the calls, but not what they cost: the program begins again."""
        self.calls.clear()
        self.num_requests, self.problem, self.is_refused, self.fault = 0, "", False, ""

    def known_failure(self) -> Response | None:
        """What became of the example if a call was refused or not answered; ``None`` if each was."""
        if self.fault:
            return self.faulty(self.fault)
        return self.unscored(self.problem) if self.problem else None

    def raise_fatal(self) -> None:
        """Raise the error that every other call would meet, too, if there was one."""
        if self.fatal is not None:
            raise self.fatal

    def answered(self, answer: Answer) -> Response:
        """The program answered."""
        text = self._text(f"The answer: {answer.text}", answer.trace)
        return Response(
            text, answer.text, self.usage, calls=tuple(self.calls), score=answer.score, reason=answer.reason
        )

    def unscored(self, problem: str) -> Response:
        """The example says nothing about the prompts."""
        return Response(self._text(), None, self.usage, problem, self.is_refused, calls=tuple(self.calls))

    def faulty(self, fault: str) -> Response:
        """The program has no answer that could be right."""
        fault = without_controls(fault)
        return Response(
            self._text(f"The program failed: {fault}"), None, self.usage, fault=fault, calls=tuple(self.calls)
        )

    def _text(self, *last: str) -> str:
        return "\n".join([*map(str, self.calls), *filter(None, last)])


@dataclass
class Totals(Recorder):
    """What requests cost in all. The calls themselves are not kept."""

    def add(self, request: Mapping[str, Any], reply: Forwarded, seconds: float) -> None:
        self.usage += reply.usage


async def forwarded(
    models: Mapping[str, OfferedModel], route: str, body: Mapping[str, Any], recorder: Recorder | None
) -> Forwarded:
    """Send a request of the program to the model that it names.

    Raises:
        EvaluationError: no model has this name.
        ModelRefused: the endpoint refuses the request.
        ModelUnavailable: as for every model call.
    """
    name = str(body.get("model") or "task")
    offered = next(iter(models.values())) if name == "task" else models.get(name)
    if offered is None:
        known = ", ".join(dict.fromkeys(["task", *models]))
        raise EvaluationError(f"the program asked for the model {name!r}; the configured models are: {known}")
    if recorder is not None:
        recorder.num_requests += 1
        if recorder.max_requests is not None and recorder.num_requests > recorder.max_requests:
            raise AnswerError(f"the program made more than {recorder.max_requests} calls (program.max_calls)")
    began = time.monotonic()
    while True:
        added = offered.added_to(body) if route == "/chat/completions" else {}
        try:
            with nullcontext() if recorder is None else recorder.waiting():
                reply = await offered.model.forward(route, {**added, **body})
            break
        except (ModelUnavailable, ModelRefused) as failure:
            if isinstance(failure, ModelRefused) and failure.parameter in added:
                offered.refused.add(failure.parameter)
                continue
            if recorder is not None:
                recorder.usage += given_up(failure)
            raise
    if recorder is not None:
        recorder.add(body, reply, time.monotonic() - began)
    return reply


@dataclass(frozen=True, slots=True)
class HttpReply:
    """The HTTP reply to a request of a program."""

    status: int
    content: bytes
    content_type: str = "application/json"

    @property
    def headers(self) -> dict[str, str]:
        """With a word to ``openai`` clients: the request was repeated as often as the configuration wants."""
        return {"content-type": self.content_type, **({"x-should-retry": "false"} if self.status >= 400 else {})}

    def as_response_of(self, module: Any) -> httpx2.Response:
        """What a transport of ``httpx`` or ``httpx2`` returns; the client reads it as if it came over a connection."""
        headers = {**self.headers, "content-length": str(len(self.content))}
        response: httpx2.Response = module.Response(
            self.status, headers=headers, stream=module.ByteStream(self.content)
        )
        return response

    @classmethod
    def error(cls, status: int, message: str) -> HttpReply:
        """An error in the form of the OpenAI API."""
        error = {"message": message, "type": "gpo", "code": status}
        return cls(status, json.dumps({"error": error}).encode())


async def reply_to(
    models: Mapping[str, OfferedModel], method: str, path: str, content: bytes, recorder: Recorder | None
) -> HttpReply:
    """The reply to an HTTP request of a program.

    Args:
        path: of the URL, such as ``/v1/chat/completions``.
        recorder: of the example that the request is for, if that is known.
    """
    route = "/" + path.partition("/v1/")[2]
    if method == "GET" and route == "/models":
        names = dict.fromkeys(["task", *models])
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "gpo"} for name in names]
        return HttpReply(200, json.dumps({"object": "list", "data": data}).encode())
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        body = None
    if method != "POST" or route not in _ROUTES or not isinstance(body, dict):
        offered = ", ".join(f"POST {one}" for one in _ROUTES)
        return HttpReply.error(404, f"{method} {route}: here are {offered} with a JSON body, and GET /models")
    streams = body.pop("stream", False)
    body.pop("stream_options", None)
    try:
        reply = await forwarded(models, route, body, recorder)
    except GPOError as failure:
        if recorder is not None:
            recorder.note(failure)
        return HttpReply.error(_status(failure), str(failure))
    if streams and route == "/chat/completions":
        return HttpReply(200, _streamed(reply.body), "text/event-stream")
    return HttpReply(200, json.dumps(reply.body).encode())


def reply_to_unexpected(recorder: Recorder) -> HttpReply:
    """The reply to a request that this program could not handle, called where the error is caught.

    The run ends, whatever the user's program does with the reply. The error is in the log alone.
    """
    log.exception("a call of a program failed")
    problem = "a call of the program failed for an unexpected reason, which is in the log of the process"
    recorder.note(EvaluationError(problem))
    return HttpReply.error(500, problem)


def _status(failure: GPOError) -> int:
    if isinstance(failure, ModelRefused):
        return _STATUS.get(failure.reason, 400)
    if isinstance(failure, EvaluationError | AnswerError):
        return 400
    return 402 if isinstance(failure, BudgetExhausted) else 503


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
    return without_controls(_in_words(choices[0].get("message") or {})) or "(no text)"


def _in_words(message: Any) -> str:
    """What a message says, with its calls of tools; content that is no text as JSON."""
    if not isinstance(message, Mapping):
        return message if isinstance(message, str) else json.dumps(message, ensure_ascii=False, default=str)
    content = message.get("content") or ""
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, default=str)
    calls = message.get("tool_calls")
    functions = [call.get("function") for call in calls if isinstance(call, Mapping)] if isinstance(calls, list) else []
    called = [f"calls {one.get('name')}({one.get('arguments')})" for one in functions if isinstance(one, Mapping)]
    return "; ".join(filter(None, [text, *called]))


def _kept(text: str) -> str:
    """What a record keeps of a text; without half characters, which no file can hold."""
    return abridged(text, _KEPT).encode(errors="replace").decode()


# -- which example a request is for -----------------------------------------------------------------------------------

current_example: ContextVar[str] = ContextVar("current_example", default="")
"""The example that the current task or thread works on, as requests name it; empty if there is none."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends requests: a program that works on an example, or whoever uses a gateway.

    Attributes:
        loop, context: where the models are called.
    """

    models: Mapping[str, OfferedModel]
    recorder: Recorder
    loop: asyncio.AbstractEventLoop
    context: Context


class NoCaller(LookupError):
    """A request cannot be answered, because nobody is known who sends it.

    Attributes:
        reply: for the request.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.reply = HttpReply.error(status, message)


def begun_in(loop: asyncio.AbstractEventLoop, context: Context, work: Coroutine[Any, Any, _T]) -> Future[_T]:
    """Run a coroutine in the event loop of another thread.

    Raises:
        NoCaller: the loop has ended.
    """
    try:
        return context.run(asyncio.run_coroutine_threadsafe, work, loop)
    except RuntimeError:
        work.close()
        if not loop.is_closed():
            raise
        raise NoCaller(410, "the run of this program has ended") from None


_in_work: dict[str, Caller] = {}
"""The examples that programs of this process work on."""
_numbers = itertools.count(1)


@contextmanager
def example_in_work(models: Mapping[str, OfferedModel], recorder: Recorder) -> Iterator[str]:
    """Let requests name an example while the block runs; yields its name."""
    identity = str(next(_numbers))
    token = current_example.set(identity)
    _in_work[identity] = Caller(models, recorder, asyncio.get_running_loop(), copy_context())
    try:
        yield identity
    finally:
        del _in_work[identity]
        current_example.reset(token)


def context_of(identity: str) -> Context | None:
    """A copy of the context in which an example is worked on; ``None`` if no example has this name."""
    caller = _in_work.get(identity)
    return caller.context.copy() if caller else None


def caller_named(identity: str) -> Caller:
    """The program that a request belongs to.

    A request that names no example belongs to all examples in work. Its usage is added to that of the next example that
    ends. If it fails, all of them stay unscored, since each of them may have needed the reply.

    Raises:
        NoCaller: the example has ended, no program runs, or programs of several runs do.
    """
    if identity:
        try:
            return _in_work[identity]
        except KeyError:
            raise NoCaller(410, "the program's work on this example has ended, or took too long") from None
    callers = list(_in_work.values())
    if not callers:
        raise NoCaller(409, "no program is running that this request could belong to")
    first = callers[0]
    if any(caller.models != first.models for caller in callers):
        problem = (
            "this process works on several runs, and a program's request over HTTP does not say to which it belongs; "
            "use the base_url and the api_key of the program's client"
        )
        for caller in callers:  # each of them may miss the reply
            caller.recorder.note(EvaluationError(problem))
        raise NoCaller(409, problem)
    context = first.context.copy()
    context.run(current_caller.set, "")
    return Caller(first.models, _unnamed_of(first.models), first.loop, context)


@dataclass
class _Unnamed(Totals):
    """Requests that name no example."""

    models: Mapping[str, OfferedModel] = field(default_factory=dict[str, OfferedModel])

    def note(self, failure: GPOError) -> None:
        for caller in list(_in_work.values()):
            caller.recorder.note(failure)


_unnamed: _Unnamed | None = None
_unnamed_lock = threading.Lock()


def _unnamed_of(models: Mapping[str, OfferedModel]) -> _Unnamed:
    """The one recorder of these models; requests come in several threads."""
    global _unnamed
    with _unnamed_lock:
        if _unnamed is None or _unnamed.models != models:
            _unnamed = _Unnamed({}, models=models)
        return _unnamed


def usage_of_unnamed(models: Mapping[str, OfferedModel]) -> Usage:
    """What requests cost that named no example, since the last call of this."""
    if _unnamed is None or _unnamed.models != models:
        return Usage()
    usage, _unnamed.usage = _unnamed.usage, Usage()
    return usage
