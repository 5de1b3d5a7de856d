"""With which status the HTTP interface refuses what, and in which words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fastapi import HTTPException
from pydantic import ValidationError
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException

from gpo.errors import BudgetExhausted, EvaluationError, ModelError, OutOfReach
from serve.client import reply
from serve.evaluator import UnknownTask
from serve.http.limits import BODY_TIMEOUT_S, MAX_BODY_BYTES
from serve.http.schemas import ErrorReply

TIMEOUT_S = 3600.0
"""How long a request may take."""
_SHOWN = 5
_LATER = {"Retry-After": "5"}

UNAUTHORIZED = {401: "A valid bearer token is needed."}
OUT_OF_REACH = {
    503: "A part of the server does not answer; it may be coming up again.",
    504: f"Not done within {TIMEOUT_S:.0f} s.",
}
REFUSALS = {
    400: "The body is not valid JSON or msgpack.",
    **UNAUTHORIZED,
    402: "A budget of the server's is spent.",
    404: "There is no such task.",
    408: f"The body did not arrive within {BODY_TIMEOUT_S:.0f} s.",
    413: f"The body is larger than {MAX_BODY_BYTES} bytes.",
    415: "The body is neither JSON nor msgpack.",
    422: "The body does not fit the schema.",
    502: "The task model could not be asked, or too many examples stayed unscored.",
    **OUT_OF_REACH,
}


def described(refusals: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    """The same for the OpenAPI page."""
    return {status: {"model": ErrorReply, "description": text} for status, text in refusals.items()}


def explained(error: ValidationError) -> str:
    """Where a body does not fit, without what stands there."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [f"{'.'.join(map(str, detail['loc'])) or 'body'}: {detail['msg']}"[:200] for detail in details[:_SHOWN]]
    more = f"; and {len(details) - _SHOWN} more" if len(details) > _SHOWN else ""
    # A field's name may hold half a character, which no reply can.
    return ("; ".join(lines) + more).encode(errors="replace").decode()


async def replied(ask: Callable[[], Any]) -> Any:
    """What the evaluator replies to a request.

    Raises:
        HTTPException: whatever can be foreseen: it refuses, fails, cannot be reached, or takes too long.
    """
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await reply(ask)
    except TimeoutError:
        raise HTTPException(504, f"not done within {TIMEOUT_S:.0f} s") from None
    except Exception as failure:
        refusal = _refusal(failure.cause if isinstance(failure, RayTaskError) else failure)
        if refusal is None:
            raise
        raise refusal from None


def _refusal(failure: Exception) -> HTTPException | None:
    """What a caller is told of a failure; ``None`` for one that nobody foresaw."""
    match failure:
        case UnknownTask(args=(task, known)):
            return HTTPException(404, f"no task {task!r}; there are: {', '.join(known)}")
        case BudgetExhausted():
            return HTTPException(402, str(failure))
        case EvaluationError() | ModelError():
            return HTTPException(502, f"{type(failure).__name__}: {failure}")
        case OutOfReach():
            return HTTPException(503, str(failure), headers=_LATER)
        case RayError() | RayServeException() if not isinstance(failure, RayTaskError):
            return HTTPException(503, "a part of the server is out of reach", headers=_LATER)
        case _:
            return None
