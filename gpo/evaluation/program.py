"""A program of the user in place of a single call: it gets the prompts, an example and a client, and answers.

The client is an ``openai`` client whose requests do not leave the process as they are: they pass the completion cache,
the limits, the budget and the retries of the configured models, and are counted like all other calls.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import httpx2

from gpo.data.example import Example
from gpo.errors import EvaluationError
from gpo.evaluation.program_calls import (
    EXAMPLE_HEADER,
    HttpReply,
    NoCaller,
    OfferedModel,
    Recorder,
    Response,
    begun_in,
    caller_named,
    context_of,
    current_example,
    example_in_work,
    reply_to,
    reply_to_unexpected,
    usage_of_unnamed,
)
from gpo.evaluation.program_function import PromptTexts, Raised, answer_in, is_async
from gpo.evaluation.program_processes import ProcessLost, ProgramRaised, Workers
from gpo.prompt import Prompt, parts_of
from gpo.runtime.concurrency import is_cancellation
from gpo.runtime.process import PicklesFieldsOnly
from gpo.user_code.functions import FunctionReference

if TYPE_CHECKING:
    import openai

_MAX_THREADS = 256
"""Plain functions that run at once in this process; containers often bound their threads to some 1,000."""


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
        processes: child processes that run it, each one example at a time; 0 runs it in this process.
        max_memory_mb: bound on the memory of each child process, in MB; ``None`` is no bound.
    """

    function: FunctionReference
    names: tuple[str, ...] = ("prompt",)
    max_seconds: float = 120.0
    hidden: tuple[str, ...] = ()
    gateway: bool = False
    max_calls: int = 100
    processes: int = 0
    max_memory_mb: int | None = None

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
        recorder = Recorder(PromptTexts(self.spec.prompts(prompt)), max_requests=self.spec.max_calls)
        async with self._in_work.starting:
            await asyncio.sleep(0)
        with self.gateway(), example_in_work(self.models, recorder) as identity:
            if self.spec.processes:
                response = await self._responded_by_process(example, recorder, identity)
            else:
                response = await self._responded_here(example, recorder, identity)
        return replace(response, usage=response.usage + usage_of_unnamed(self.models))

    def gateway(self) -> AbstractContextManager[object]:
        """Run the gateway of this process while a block runs, if the program wants one."""
        if not self.spec.gateway:
            return nullcontext()
        from gpo.evaluation.gateway import opened_gateway

        return opened_gateway()

    async def _responded_here(self, example: Example, recorder: Recorder, identity: str) -> Response:
        function, arguments = self.spec.function.load(), (PromptTexts(recorder.prompts), self.spec.example(example))
        if is_async(function):
            client = self._client.with_options(**self._options(identity))
            return await self._response(recorder, lambda: function(*arguments, client), function)
        sync_client = self._sync_client.with_options(**self._options(identity))
        async with self._in_work.turns:
            return await self._response(recorder, lambda: self._in_thread(function, *arguments, sync_client), function)

    async def _responded_by_process(self, example: Example, recorder: Recorder, identity: str) -> Response:
        task = {"prompts": dict(recorder.prompts), "example": self.spec.example(example)}
        async with self._in_work.turns:
            worker = await self._in_work.workers.take()
            while True:
                try:
                    return await self._response(recorder, partial(worker.answer, task, identity))
                except ProcessLost as lost:
                    recorder.raise_fatal()
                    if worker.is_new:
                        return recorder.known_failure() or recorder.unscored(str(lost))
                # What earlier examples have left in the process may be the cause.
                recorder.restart()
                worker = await self._in_work.workers.take(is_new=True)

    async def _response(
        self, recorder: Recorder, answering: Callable[[], Awaitable[Any]], function: Callable[..., Any] | None = None
    ) -> Response:
        """What became of an example.

        Args:
            function: the program, if it runs in this process.

        Raises:
            ProcessLost: a process has ended, or has sent something else than an answer.
        """
        try:
            async with asyncio.timeout(self.spec.max_seconds) as limit:
                recorder.limit = limit
                returned = await answering()
        except ProcessLost:
            raise
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            if is_cancellation(error):
                raise
            recorder.raise_fatal()
            if isinstance(error, TimeoutError) and limit.expired():
                seconds = self.spec.max_seconds
                return recorder.unscored(f"the program took longer than program.max_seconds ({seconds:g} s)")
            if (known := recorder.known_failure()) is not None:
                return known
            if isinstance(error, ProgramRaised):
                return self._failed(error.raised, recorder)
            if function is None:
                raise
            return self._failed(Raised.by(function, error), recorder)
        recorder.raise_fatal()
        if (known := recorder.known_failure()) is not None:  # whatever the program made of it
            return known
        return recorder.answered(answer_in(returned, self.spec.function))

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        loop = asyncio.get_running_loop()
        self._sync_transport.loop, self._sync_transport.thread = loop, threading.get_ident()
        outcome, pid = loop.create_future(), os.getpid()

        def work() -> None:
            # Not a pool: threads of programs that hang would be missing there.
            result: tuple[Any, BaseException | None]
            try:
                result = function(*arguments), None
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

    def _failed(self, error: Raised, recorder: Recorder) -> Response:
        if error.is_answer_error or (recorder.calls and error.can_be_of_answer):
            return recorder.faulty(error.fault)
        raise EvaluationError(f"the program {self.spec.function} failed: {error.shown}") from None

    @property
    def _in_work(self) -> _InWork:
        """What bounds the examples in work, in the running event loop."""
        current: _InWork | None = self.__dict__.get("_current_work")
        if current is None or current.loop is not asyncio.get_running_loop():
            current = self.__dict__["_current_work"] = _InWork(self.spec)
        return current

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
            return unknown.reply.as_response_of(httpx2)
        try:
            reply = await reply_to(self.models, request.method, request.url.path, content, caller.recorder)
        except Exception:
            reply = reply_to_unexpected(caller.recorder)
        return reply.as_response_of(httpx2)


class _InWork:
    """Turns of the examples, and the child processes, of one event loop.

    Examples start one at a time, each in another pass of the event loop. A program prepares its first call without a
    pause, so if many programs started in one pass, no request would be sent until the last one is prepared.
    """

    def __init__(self, spec: ProgramSpec) -> None:
        self.loop = asyncio.get_running_loop()
        self.starting = asyncio.Lock()
        self.turns = asyncio.Semaphore(spec.processes or _MAX_THREADS)
        self.workers = Workers(spec.function, spec.max_memory_mb)


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
            return reply.as_response_of(httpx2)
        # The thread may be one that the program has started, without the context of the trajectory.
        context = context_of(request.headers.get(EXAMPLE_HEADER, "")) or copy_context()
        try:
            return begun_in(self.loop, context, self._program.reply_to(request, request.read())).result()
        except NoCaller as ended:
            return ended.reply.as_response_of(httpx2)
