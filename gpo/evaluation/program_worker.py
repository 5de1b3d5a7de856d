"""A child process that runs a program on one example after the other, until its parent needs it no more."""

from __future__ import annotations

import asyncio
import ctypes
import inspect
import json
import os
import pickle
import resource
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import openai

from gpo.errors import EvaluationError
from gpo.evaluation.gateway_clients import name_examples
from gpo.evaluation.program_function import PromptTexts, Raised, answer_in, is_async
from gpo.evaluation.program_processes import LENGTH_BYTES
from gpo.user_code.functions import FunctionReference

_PR_SET_PDEATHSIG = 1


def work(descriptor: int, parent: int) -> None:
    """Work until the connection ends.

    Args:
        descriptor: of the socket to the parent.
        parent: its process ID.
    """
    # The process ends with its parent, whatever the program does.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    with socket.socket(fileno=descriptor) as connection, asyncio.Runner() as runner:
        given = _next(connection)
        if given is None:
            return
        try:
            program = _Program(given, runner)
        except EvaluationError as failure:
            _send(connection, {"bug": str(failure)})
            return
        _send(connection, {})
        while (task := _next(connection)) is not None:
            _send(connection, program.reply_to(task))


class _Program:
    """The program in this process.

    Args:
        given: the first message of the parent.
    """

    def __init__(self, given: dict[str, Any], runner: asyncio.Runner) -> None:
        self._reference: FunctionReference = given["function"]
        self._runner, self._pid, self._identity = runner, os.getpid(), ""
        if (bound := given["max_memory_bytes"]) is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))
        # Whatever thread makes a call, it is for the one example that is in work.
        name_examples(given["url"], lambda: self._identity)
        try:
            self._function = self._reference.load()
        except MemoryError:
            raise EvaluationError("the import needs more memory than program.max_memory_mb") from None
        # Nothing here bounds a call: it may wait for its turn, for minutes.
        options: dict[str, Any] = {"base_url": given["url"], "api_key": "-", "max_retries": 0, "timeout": None}
        self._client: openai.AsyncOpenAI | openai.OpenAI
        if is_async(self._function):
            self._client = openai.AsyncOpenAI(**options, http_client=openai.DefaultAsyncHttpxClient(trust_env=False))
        else:
            self._client = openai.OpenAI(**options, http_client=openai.DefaultHttpxClient(trust_env=False))

    def reply_to(self, task: dict[str, Any]) -> dict[str, Any]:
        """The answer to an example, or why there is none, in a form for JSON."""
        self._identity = task["identity"]
        client = self._client.with_options(api_key=task["key"])
        try:
            returned = self._called(PromptTexts(task["prompts"]), task["example"], client)
        except BaseException as error:
            self._end_forked()
            if _is_of_memory(error):
                return {"memory": True}
            return {"raised": asdict(Raised.by(self._function, error))}
        finally:
            self._identity = ""
        self._end_forked()
        try:
            answer = answer_in(returned, self._reference)
        except EvaluationError as failure:
            return {"bug": str(failure)}
        return {"answer": asdict(answer)}

    def _called(self, *arguments: Any) -> Any:
        function: Callable[..., Any] = self._function
        if not is_async(function):
            returned = function(*arguments)
            if not inspect.isawaitable(returned):
                return returned
            function, arguments = _awaited, (returned,)
        return self._runner.run(function(*arguments))

    def _end_forked(self) -> None:
        if os.getpid() != self._pid:  # a forked child of the program, which answers nothing
            os._exit(0)


async def _awaited(value: Any) -> Any:
    return await value


def _is_of_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _next(connection: socket.socket) -> dict[str, Any] | None:
    """The next message of the parent; ``None`` at the end."""
    header = connection.recv(LENGTH_BYTES, socket.MSG_WAITALL)
    if len(header) < LENGTH_BYTES:
        return None
    content = connection.recv(int.from_bytes(header, "big"), socket.MSG_WAITALL)
    message: dict[str, Any] = pickle.loads(content)  # noqa: S301  # from the parent, which started this process
    return message


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    sys.stdout.flush()
    content = json.dumps(message).encode()
    connection.sendall(len(content).to_bytes(LENGTH_BYTES, "big") + content)
