"""An OpenAI-compatible HTTP server for programs whose frameworks have clients of their own.

One thread of a process receives the requests. The models are called in the event loop of the program that sends them,
since their connections and limits belong to it. Requests that ``httpx`` sends in this process need no connection; see
``gpo.evaluation.gateway_clients``.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from functools import cache
from hashlib import sha256

from aiohttp import web

from gpo.errors import EvaluationError
from gpo.evaluation.gateway_clients import name_examples
from gpo.evaluation.program_calls import (
    EXAMPLE_HEADER,
    Caller,
    HttpReply,
    NoCaller,
    begun_in,
    caller_named,
    reply_to,
    reply_to_unexpected,
)
from gpo.sockets import bound_socket
from gpo.user_code.environment import replaced, variable

MAX_BODY_BYTES = 32_000_000
"""Largest request; conversations may contain pictures."""
_BLOCKED_S = 30.0
"""An event loop that does not begin a call within this time waits for the reply to that call."""


class Gateway:
    """Offers models over HTTP: chat completions, embeddings, and the list of models.

    The address is taken at once, so that a client can be made before the server starts.

    Args:
        token: every request needs it as a bearer token.
        caller: who sends a request, by the example that it names (empty if it names none); see ``caller_named``.
        listening: a bound socket.
    """

    def __init__(self, token: str, caller: Callable[[str], Caller], listening: socket.socket) -> None:
        self._known = sha256(token.encode()).digest()
        self._token, self._caller, self._socket = token, caller, listening
        self._lock = threading.Lock()
        self._started: Future[None] | None = None

    @property
    def url(self) -> str:
        """The address up to and including ``/v1``."""
        host, port = self._socket.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"

    def key(self, example: str = "") -> str:
        """The API key of a client, whose requests then name an example."""
        return f"{self._token}.{example}" if example else self._token

    @property
    def variables(self) -> Mapping[str, str]:
        """Environment variables that make clients use the gateway."""
        exempt = variable("NO_PROXY") or variable("no_proxy")
        if exempt != "*":
            exempt = ",".join(filter(None, [exempt, self._socket.getsockname()[0]]))
        return {
            "OPENAI_BASE_URL": self.url,
            "OPENAI_API_BASE": self.url,  # of older clients
            "OPENAI_API_KEY": self.key(),
            "NO_PROXY": exempt,
            "no_proxy": exempt,
        }

    def start(self) -> None:
        """Start the server, if it does not run yet, and wait for it.

        Raises:
            EvaluationError: it does not start. The next call tries again.
        """
        with self._lock:
            if self._started is None:
                self._started = Future()
                try:
                    threading.Thread(target=self._run, args=(self._started,), name="gateway", daemon=True).start()
                except RuntimeError as error:  # too many threads
                    self._started.set_exception(error)
            started = self._started
        try:
            started.result()
        except Exception as error:
            with self._lock:
                if self._started is started:
                    self._started = None
            raise EvaluationError(
                f"the HTTP server for programs does not start ({error}); if this process has too many threads or open "
                "files, raise its limits (ulimit) or lower the number of concurrent calls"
            ) from error

    def _run(self, started: Future[None]) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._serve(started))
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)  # else, all callers would wait for ever

    async def _serve(self, started: Future[None]) -> None:
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", self._handle)
        # A client that goes away needs no reply: its call is cancelled, and frees its slot.
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
        await runner.setup()
        await web.SockSite(runner, self._socket).start()
        self._loop = asyncio.get_running_loop()
        started.set_result(None)
        await asyncio.Event().wait()  # until the process ends

    async def _handle(self, request: web.Request) -> web.Response:
        reply = await self.reply(request.method, request.path, request.headers, request.read)
        response = web.Response(status=reply.status, body=reply.content, headers=reply.headers)
        # Forked children would share a connection that is kept, and another event loop could not use it.
        response.force_close()
        return response

    async def reply(
        self, method: str, path: str, headers: Mapping[str, str], read: Callable[[], Awaitable[bytes]]
    ) -> HttpReply:
        """The reply to a request, in any event loop.

        Args:
            headers: names in any case.
            read: the body; called only if the key is right.
        """
        try:
            caller = self._caller_of(headers)
            content = await read()
            if len(content) > MAX_BODY_BYTES:  # no server has bounded it
                raise web.HTTPRequestEntityTooLarge(MAX_BODY_BYTES, len(content))
        except NoCaller as unknown:
            return unknown.reply
        except web.HTTPRequestEntityTooLarge:
            return HttpReply.error(413, f"the request is larger than {MAX_BODY_BYTES} bytes")
        try:
            if caller.loop is not asyncio.get_running_loop():
                return await self._called(caller, method, path, content)
            work = reply_to(caller.models, method, path, content, caller.recorder)
            return await asyncio.create_task(work, context=caller.context.copy())
        except NoCaller as ended:
            return ended.reply
        except Exception:
            return reply_to_unexpected(caller.recorder)

    def reply_in_thread(self, method: str, path: str, headers: Mapping[str, str], content: bytes) -> HttpReply:
        """The reply to a request; waits for it. The gateway must have been started."""

        async def read() -> bytes:
            return content

        return asyncio.run_coroutine_threadsafe(self.reply(method, path, headers, read), self._loop).result()

    def _caller_of(self, headers: Mapping[str, str]) -> Caller:
        scheme, _, key = headers.get("Authorization", "").partition(" ")
        token, _, example = key.strip().partition(".")
        # As digests, in constant time: the duration reveals nothing about the token.
        is_known = hmac.compare_digest(sha256(token.encode(errors="replace")).digest(), self._known)
        if not is_known or scheme.lower() != "bearer":
            raise NoCaller(401, "the API key is not that of this gateway, which is in OPENAI_API_KEY")
        return self._caller(example or headers.get(EXAMPLE_HEADER, ""))

    async def _called(self, caller: Caller, method: str, path: str, content: bytes) -> HttpReply:
        """The reply from the caller's event loop, which is another one than this."""
        begun = False

        async def work() -> HttpReply:
            nonlocal begun
            begun = True
            return await reply_to(caller.models, method, path, content, caller.recorder)

        # A copy, since only one thread at a time can be in a context.
        future = asyncio.wrap_future(begun_in(caller.loop, caller.context.copy(), work()))
        timer = asyncio.get_running_loop().call_later(_BLOCKED_S, lambda: begun or future.cancel())
        try:
            return await future
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if begun or (task is not None and task.cancelling()):
                raise
            problem = (
                "an async program waits for a call over HTTP without await, so that nothing can answer it; "
                "write a plain function, which runs in a thread"
            )
            caller.recorder.note(EvaluationError(problem))
            return HttpReply.error(409, problem)
        finally:
            timer.cancel()


_opening = threading.Lock()
"""Held while the gateway is made: ``functools.cache`` alone would make one for each thread that asks at that moment."""


def process_gateway() -> Gateway:
    """The gateway of this process for its programs."""
    with _opening:
        return _made_gateway()


@cache
def _made_gateway() -> Gateway:
    return Gateway(secrets.token_urlsafe(32), caller_named, bound_socket("127.0.0.1", 0))


@contextmanager
def opened_gateway() -> Iterator[Gateway]:
    """Run the gateway of this process, with the variables that lead to it while the block runs."""
    gateway = process_gateway()
    gateway.start()
    with _opening:
        name_examples(gateway.url, gateway=gateway)
    with replaced(gateway.variables):
        yield gateway
