"""A model that is a Python function of the user."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpo.errors import EvaluationError, ModelRefused, ModelUnavailable, RefusalReason
from gpo.models.protocol import Completion, Embeddings, Forwarded, Message, Sampling, Usage
from gpo.runtime.concurrency import is_cancellation
from gpo.user_code.functions import FunctionReference, shown_error

_NETWORK = ("ConnectionError", "ConnectError", "TransportError", "Timeout", "TimeoutError")
"""How the names of error classes end that clients of language models raise where the network or a server fails."""
_BUSY, _TRANSIENT, _EVERY_CALL = 429, (408, 409), {401: "KEY", 402: "CREDIT", 403: "KEY", 404: "MODEL"}


@dataclass(frozen=True, slots=True)
class FunctionModel:
    """A model behind ``async function(messages, **sampling) -> str``; a plain function runs in a thread.

    ``messages`` are dictionaries with ``role`` and ``content``. ``sampling`` holds those of ``temperature``,
    ``max_tokens``, ``top_p``, ``stop``, ``seed`` and the configuration's ``extra`` that are set and that the function
    takes. Each call counts as one request without tokens.

    Errors that a client raises where the network or a server fails are transient: ``TimeoutError``,
    ``ConnectionError``, classes with such names, and errors whose ``status_code`` is 408, 409, 429 or from 500.
    With another ``status_code`` from 400, the call is refused. Every other error is a fault of the function.

    Args:
        function: where the function is.
        timeout_s: bound on one call, in seconds.
    """

    function: FunctionReference
    timeout_s: float

    async def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        """Reply to a conversation; see ``gpo.models.protocol.ChatModel``.

        Raises:
            EvaluationError: the function is faulty or returned something else than a text.
        """
        function = self.function.load()
        settings = {
            "temperature": sampling.temperature,
            "max_tokens": sampling.max_tokens,
            "top_p": sampling.top_p,
            "stop": list(sampling.stop) or None,
            "seed": sampling.seed,
            **sampling.extra,
        }
        known = {name: value for name, value in settings.items() if value is not None and _takes(function, name)}
        try:
            async with asyncio.timeout(self.timeout_s):
                reply = await _called(function, [dict(message) for message in messages], known)
        except (Exception, SystemExit, asyncio.CancelledError) as error:  # ``sys.exit`` would end the event loop
            if is_cancellation(error):
                raise
            raise self._explained(error) from None
        if not isinstance(reply, str):
            raise EvaluationError(f"the function {self.function} returned a {type(reply).__name__}, not a text")
        return Completion(reply, Usage(requests=1))

    async def embed_batch(self, texts: Sequence[str]) -> Embeddings:
        """Not possible.

        Raises:
            EvaluationError: always.
        """
        raise EvaluationError(f"the function {self.function} cannot embed texts")

    async def forward(self, route: str, body: Mapping[str, Any]) -> Forwarded:
        """Reply to a request of a program, if it is a conversation without tools.

        Raises:
            ModelRefused: it is another kind of request.
            EvaluationError: as for ``complete``.
        """
        messages = body.get("messages")
        if route != "/chat/completions" or body.get("tools") or not isinstance(messages, list):
            problem = f"the model {self.function} is a function, which answers conversations without tools only"
            raise ModelRefused(problem, RefusalReason.REQUEST, model=str(self.function))
        stop = body.get("stop") or ()
        sampling = Sampling(
            **{name: body.get(name) for name in ("temperature", "max_tokens", "top_p", "seed")},  # type: ignore[arg-type]
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
        )
        reply = await self.complete(messages, sampling)
        message = {"role": "assistant", "content": reply.text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return Forwarded({"object": "chat.completion", "model": str(self.function), "choices": [choice]}, reply.usage)

    def _explained(self, error: BaseException) -> Exception:
        where = shown_error(error, within=self.function.load())
        shown = f"the function {self.function}: {where}"
        status = _status(error)
        if isinstance(status, int) and status >= 400:
            if status == _BUSY or status in _TRANSIENT or status >= 500:
                return ModelUnavailable(shown, too_many=status == _BUSY)
            reason = RefusalReason[_EVERY_CALL.get(status, "REQUEST")]
            return ModelRefused(shown, reason, model=str(self.function))
        if any(one.__name__.endswith(_NETWORK) for one in type(error).__mro__):
            return ModelUnavailable(shown)
        return EvaluationError(
            f"the function {self.function} failed: {shown_error(error, within=self.function.load())}"
        )


async def _called(function: Callable[..., Any], messages: list[dict[str, Any]], settings: Mapping[str, Any]) -> Any:
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
        return await function(messages, **settings)
    reply = await asyncio.to_thread(function, messages, **settings)
    return await reply if inspect.isawaitable(reply) else reply


def _status(error: BaseException) -> int | None:
    """The HTTP status that a client's error has: its own, or that of its response."""
    response = getattr(error, "response", None)
    for of, name in ((error, "status_code"), (error, "status"), (response, "status_code"), (response, "status")):
        if isinstance(status := getattr(of, name, None), int):
            return status
    return None


def _takes(function: Callable[..., Any], name: str) -> bool:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # some functions that are written in C
        return True
    return name in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values())
