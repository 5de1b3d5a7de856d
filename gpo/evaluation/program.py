"""A program of the user in place of a single call: it gets the prompts, an example and a client, and answers.

The client is an ``openai`` client whose requests do not leave the process as they are: they pass the completion cache,
the limits, the budget and the retries of the configured models, and are counted like all other calls.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import httpx2

from gpo.data.example import Example
from gpo.errors import AnswerError, EvaluationError
from gpo.evaluation.program_calls import (
    EXAMPLE_HEADER,
    HttpReply,
    NoCaller,
    OfferedModel,
    Recorder,
    Response,
    caller_named,
    context_of,
    current_example,
    example_in_work,
    reply_to,
    usage_of_unnamed,
)
from gpo.models.replies import MAX_REPLY_CHARACTERS
from gpo.prompt import Prompt, parts_of
from gpo.runtime.process import PicklesFieldsOnly
from gpo.user_code.functions import FunctionReference, shown_error

if TYPE_CHECKING:
    import openai

_OF_ANSWERS = (ValueError, LookupError, TypeError, AttributeError, AnswerError)
"""Errors that a model's answer can cause: JSON that is none, a list in place of a section, a missing field or text, a
tool of no such name."""


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
        names: the names of its prompts, in order. The text of a single prompt has no heading.
        max_seconds: bound on one example, in seconds; the time in which models are called does not count.
        max_calls: bound on the model calls for one example; a program that makes more scores 0.
        hidden: columns that hold the right answer.
        gateway: whether clients of the program's frameworks reach the models over HTTP; see ``gpo.evaluation.gateway``.
    """

    function: FunctionReference
    names: tuple[str, ...] = ("prompt",)
    max_seconds: float = 120.0
    hidden: tuple[str, ...] = ()
    gateway: bool = False
    max_calls: int = 100

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
        if len(self.names) == 1:
            return {self.names[0]: prompt.text}
        parts = parts_of(prompt.text)
        if tuple(parts) != self.names:
            raise KeyError(f"the prompt has the parts {', '.join(parts) or 'none'}, not {', '.join(self.names)}")
        return parts


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
        recorder = Recorder(_Prompts(self.spec.prompts(prompt)), max_requests=self.spec.max_calls)
        with self.gateway(), example_in_work(self.models, recorder) as identity:
            response = await self._responded(example, recorder, identity)
        return replace(response, usage=response.usage + usage_of_unnamed(self.models))

    def gateway(self) -> AbstractContextManager[object]:
        """Run the gateway of this process while a block runs, if the program wants one."""
        if not self.spec.gateway:
            return nullcontext()
        from gpo.evaluation.gateway import opened_gateway

        return opened_gateway()

    async def _responded(self, example: Example, recorder: Recorder, identity: str) -> Response:
        function = self.spec.function.load()
        try:
            async with asyncio.timeout(self.spec.max_seconds) as limit:
                recorder.limit = limit
                returned = await self._called(function, example, recorder, identity)
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and (task := asyncio.current_task()) and task.cancelling():
                raise
            recorder.raise_fatal()
            if isinstance(error, TimeoutError) and limit.expired():
                seconds = self.spec.max_seconds
                return recorder.unscored(f"the program took longer than program.max_seconds ({seconds:g} s)")
            return self._failed(function, error, recorder)
        recorder.raise_fatal()
        if recorder.fault:
            return recorder.faulty(recorder.fault)
        if recorder.problem:  # the program went on without a reply: its answer says nothing about the prompts
            return recorder.unscored(recorder.problem)
        answer = self._text(returned)
        return recorder.answered(answer.text, answer.trace)

    async def _called(self, function: Callable[..., Any], example: Example, recorder: Recorder, identity: str) -> Any:
        options = self._options(identity)
        arguments = (_Prompts(recorder.prompts), self.spec.example(example))
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
            return await function(*arguments, self._client.with_options(**options))
        loop = asyncio.get_running_loop()
        self._sync_transport.loop, self._sync_transport.thread = loop, threading.get_ident()
        client, outcome = self._sync_client.with_options(**options), loop.create_future()
        pid = os.getpid()

        def work() -> None:
            # Not a pool: threads of programs that hang would be missing there.
            result: tuple[Any, BaseException | None]
            try:
                result = function(*arguments, client), None
            except BaseException as raised:
                result = None, raised
            if os.getpid() != pid:  # a forked child of the program, which has no event loop
                os._exit(0)
            with suppress(RuntimeError):  # the run has ended meanwhile
                loop.call_soon_threadsafe(lambda: None if outcome.done() else outcome.set_result(result))

        threading.Thread(target=copy_context().run, args=(work,), name="program", daemon=True).start()
        returned, error = await outcome
        if error is not None:
            # The errors that end a thread or a loop would end the evaluator here.
            raise error if isinstance(error, Exception | SystemExit) else RuntimeError(type(error).__name__) from error
        return await returned if inspect.isawaitable(returned) else returned

    def _options(self, identity: str) -> dict[str, Any]:
        """Of the client for an example. Clients that take its ``base_url`` and ``api_key`` reach the gateway."""
        options: dict[str, Any] = {"default_headers": {EXAMPLE_HEADER: identity}}
        if self.spec.gateway:
            from gpo.evaluation.gateway import process_gateway

            gateway = process_gateway()
            options |= {"base_url": gateway.url, "api_key": gateway.key(identity)}
        return options

    def _failed(self, function: Callable[..., Any], error: BaseException, recorder: Recorder) -> Response:
        if recorder.fault:
            return recorder.faulty(recorder.fault)
        if recorder.problem:
            return recorder.unscored(recorder.problem)
        if isinstance(error, AnswerError) or (recorder.calls and isinstance(error, _OF_ANSWERS)):
            return recorder.faulty(f"{type(error).__name__}: {error}")
        if isinstance(error.__cause__, StopIteration):  # which no coroutine can raise
            error = error.__cause__
        shown = shown_error(error, within=function)
        raise EvaluationError(f"the program {self.spec.function} failed: {shown}") from None

    def _text(self, returned: Any) -> Answer:
        if isinstance(returned, Answer) and isinstance(returned.text, str) and isinstance(returned.trace, str):
            return Answer(returned.text[:MAX_REPLY_CHARACTERS], returned.trace[:MAX_REPLY_CHARACTERS])
        if isinstance(returned, str | int | float):
            return Answer(str(returned)[:MAX_REPLY_CHARACTERS])
        raise EvaluationError(
            f"the program {self.spec.function} returned a {type(returned).__name__}, not a text or a gpo.Answer"
        )

    @cached_property
    def _client(self) -> openai.AsyncOpenAI:
        import openai  # takes half a second, and most tasks have no program

        http = httpx2.AsyncClient(transport=_Transport(self))
        return openai.AsyncOpenAI(base_url=_ADDRESS, api_key="-", max_retries=0, http_client=http)

    @cached_property
    def _sync_transport(self) -> _SyncTransport:
        return _SyncTransport(self)

    @cached_property
    def _sync_client(self) -> openai.OpenAI:
        import openai

        http = httpx2.Client(transport=self._sync_transport)
        return openai.OpenAI(base_url=_ADDRESS, api_key="-", max_retries=0, http_client=http)

    async def reply_to(self, request: httpx2.Request, content: bytes) -> httpx2.Response:
        """The HTTP reply to a request of the client."""
        try:
            caller = caller_named(request.headers.get(EXAMPLE_HEADER) or current_example.get())
        except NoCaller as unknown:
            reply = unknown.reply
        else:
            reply = await reply_to(self.models, request.method, request.url.path, content, caller.recorder)
        return httpx2.Response(reply.status, headers=reply.headers, content=reply.content)


class _Prompts(dict[str, str]):
    """The prompts of a program. A name that does not exist is a mistake in the program, whatever a model replied."""

    def __missing__(self, name: str) -> str:
        raise EvaluationError(f"there is no prompt {name!r}; the prompts are: {', '.join(self)}")


_ADDRESS = "http://models.invalid/v1"
"""No request is ever sent there: the transport answers."""


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
        self.thread = 0
        """The loop's thread, which must not wait for itself."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if self.loop is None:
            raise RuntimeError("no program is running")
        if threading.get_ident() == self.thread:
            reply = HttpReply.error(409, "this is the client of a plain function, but the call is async; use async def")
            return httpx2.Response(reply.status, headers=reply.headers, content=reply.content)
        work = self._program.reply_to(request, request.read())
        # The thread may be one that the program has started, without the context of the trajectory.
        context = context_of(request.headers.get(EXAMPLE_HEADER, "")) or copy_context()
        return context.run(asyncio.run_coroutine_threadsafe, work, self.loop).result()
