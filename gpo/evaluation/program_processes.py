"""The child processes that run programs which block, leak or crash: each works on one example at a time.

A process gets its work as pickles, over a socket, and replies in JSON, which is the only thing that this process reads
of it. Its model calls go to the gateway of this process.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any

from gpo.errors import EvaluationError
from gpo.evaluation.program_function import Answer, Raised, answer_in
from gpo.models.replies import MAX_REPLY_CHARACTERS
from gpo.user_code.environment import own_environment
from gpo.user_code.functions import FunctionReference

LENGTH_BYTES = 8
"""Of the length before each message, in network order."""
_MAX_REPLY_BYTES = 36 * MAX_REPLY_CHARACTERS + 10_000
"""Answer, trace and reason, with two escapes of six bytes for each character."""
_IDLE_S = 10.0
"""How long a process without work is kept."""
_START_S = 300.0
"""How long the import of a program may take."""
_NO_ANSWER = "the program's process sent something else than an answer"
_CODE = (
    "import sys; sys.path[:] = sys.argv[3:]; "
    "from gpo.evaluation.program_worker import work; work(int(sys.argv[1]), int(sys.argv[2]))"
)


class ProcessLost(Exception):
    """A process can work on no example any more; says why."""


class ProgramRaised(Exception):
    """A program raised an error in its process."""

    def __init__(self, raised: Raised) -> None:
        super().__init__(raised)
        self.raised = raised


class Workers:
    """The processes of a program, in one event loop. The caller bounds how many of them it takes at a time.

    Args:
        function: the program.
        max_memory_mb: bound on the memory of each process, in MB.
    """

    def __init__(self, function: FunctionReference, max_memory_mb: int | None) -> None:
        self._function, self._max_memory_mb = function, max_memory_mb
        self._idle: list[tuple[Worker, asyncio.TimerHandle]] = []
        self._lifetime: AsyncGenerator[None] | None = None

    async def take(self, *, is_new: bool = False) -> Worker:
        """A process that is ready; it returns here by itself.

        Raises:
            EvaluationError: the program cannot be imported there.
        """
        if self._idle and not is_new:
            worker, timer = self._idle.pop()
            timer.cancel()
            return worker
        if self._lifetime is None:  # ends with the event loop at the latest
            self._lifetime = self._alive()
            await anext(self._lifetime)
        worker = Worker(self._function, self._max_memory_mb, self._returned)
        await worker.start()
        return worker

    async def _alive(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            for worker, timer in self._idle:
                timer.cancel()
                worker.end()

    def _returned(self, worker: Worker) -> None:
        worker.is_new = False
        timer = asyncio.get_running_loop().call_later(_IDLE_S, self._retire, worker)
        self._idle.append((worker, timer))

    def _retire(self, worker: Worker) -> None:
        self._idle = [entry for entry in self._idle if entry[0] is not worker]
        worker.end()


class Worker:
    """A process. It ends with the object, and with this process.

    Args:
        returned: called after each answer.
    """

    def __init__(
        self, function: FunctionReference, max_memory_mb: int | None, returned: Callable[[Worker], None]
    ) -> None:
        from gpo.evaluation.gateway import process_gateway

        self._function, self._max_memory_mb, self._returned = function, max_memory_mb, returned
        self.is_new = True
        """Whether it has worked on no example yet."""
        self._gateway = process_gateway()
        self._gateway.start()
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  # this interpreter
                [sys.executable, "-c", _CODE, str(theirs.fileno()), str(os.getpid()), *sys.path],
                env={**own_environment(), **self._gateway.variables},
                stdin=subprocess.DEVNULL,
                stdout=2,  # what it prints is no output of the command
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # a group of its own, which ends with it; Ctrl-C does not reach it
            )
        self._pidfd = os.pidfd_open(self._process.pid)
        self.end = weakref.finalize(self, _end, os.getpid(), self._process, self._socket, self._pidfd)
        """End the process at once, with all that it has started."""

    async def start(self) -> None:
        """Wait until the program is imported.

        Raises:
            EvaluationError: it cannot be imported.
        """
        given = {
            "function": self._function,
            "url": self._gateway.url,
            "max_memory_bytes": None if self._max_memory_mb is None else self._max_memory_mb * 1_000_000,
        }
        try:
            async with asyncio.timeout(_START_S):
                reply = await self._reply_to(given)
        except TimeoutError:
            raise EvaluationError(f"the import of {self._function} took longer than {_START_S:g} s") from None
        except ProcessLost as lost:
            raise EvaluationError(f"{self._function} cannot be imported in a process of its own: {lost}") from None
        if "bug" in reply:
            self.end()
            raise EvaluationError(str(reply["bug"]))

    async def answer(self, task: dict[str, Any], identity: str) -> Answer:
        """The answer of the program to an example.

        Args:
            task: ``prompts`` and ``example``.
            identity: of the example, for the gateway.

        Raises:
            ProgramRaised: the program raised an error.
            EvaluationError: it returned no answer.
            ProcessLost: the process has ended.
        """
        reply = await self._reply_to({**task, "identity": identity, "key": self._gateway.key(identity)})
        try:
            if "answer" in reply:
                answer = answer_in(Answer(**reply["answer"]), self._function)
                self._returned(self)
                return answer
            bug, raised = reply.get("bug"), None if "bug" in reply else Raised(**reply["raised"])
        except (EvaluationError, KeyError, TypeError):
            self.end()
            raise ProcessLost(_NO_ANSWER) from None
        self._returned(self)
        raise EvaluationError(str(bug)) if raised is None else ProgramRaised(raised)

    async def _reply_to(self, message: dict[str, Any]) -> dict[str, Any]:
        try:
            reply = await self._exchanged(pickle.dumps(message))
        except BaseException:  # a program that is not wanted any more must not go on
            self.end()
            raise
        if reply.get("memory"):
            self.end()
            raise ProcessLost(f"the program needs more memory than program.max_memory_mb ({self._max_memory_mb} MB)")
        return reply

    async def _exchanged(self, message: bytes) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        # A child that the program has forked may keep the socket open after the end of the process.
        loop.add_reader(self._pidfd, lambda: None if ended.done() else ended.set_result(None))
        exchange = loop.create_task(self._sent_and_received(message))
        try:
            await asyncio.wait([exchange, ended], return_when=asyncio.FIRST_COMPLETED)
            if not exchange.done():
                raise ProcessLost(_death(self._process.wait()))
            return exchange.result()
        finally:
            loop.remove_reader(self._pidfd)
            exchange.cancel()
            await asyncio.wait([exchange])  # it may still wait for the socket, which is closed next

    async def _sent_and_received(self, message: bytes) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(self._socket, len(message).to_bytes(LENGTH_BYTES, "big") + message)
            length = int.from_bytes(await self._received(LENGTH_BYTES), "big")
            if length > _MAX_REPLY_BYTES:
                raise ValueError
            reply = json.loads(await self._received(length))
            if not isinstance(reply, dict):
                raise ValueError
        except ConnectionError:
            await asyncio.sleep(1.0)  # the end of the process says more
            raise ProcessLost("the program closed the connection of its process") from None
        except (ValueError, RecursionError):
            raise ProcessLost(_NO_ANSWER) from None
        return reply

    async def _received(self, number: int) -> bytes:
        loop, received = asyncio.get_running_loop(), bytearray()
        while len(received) < number:
            chunk = await loop.sock_recv(self._socket, min(number - len(received), 1 << 20))
            if not chunk:
                raise ConnectionError
            received += chunk
        return bytes(received)


def _end(owner: int, process: subprocess.Popen[bytes], connection: socket.socket, pidfd: int) -> None:
    if os.getpid() != owner:  # a forked child of this process, whose exit ends nothing here
        return
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    connection.close()
    os.close(pidfd)


def _death(status: int) -> str:
    if status >= 0:
        return f"the program ended its process with exit code {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = str(-status)
    hint = "; perhaps the machine has too little memory" if name == "SIGKILL" else ""
    return f"the program's process was ended by {name}{hint}"
