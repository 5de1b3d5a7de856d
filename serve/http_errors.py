"""Errors of the HTTP interface: their statuses and texts."""

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
from serve.evaluator import UnfitPrompt, UnknownTask
from serve.http_limits import BODY_TIMEOUT_S, MAX_BODY_BYTES
from serve.http_schemas import ErrorReply
from serve.runs import NoResult, RefusedRun, TooManyRuns, UnknownRun

TIMEOUT_S = 3600.0
"""Longest duration of a request, in seconds."""
_MAX_PROBLEMS = 5
_RETRY_LATER = {"Retry-After": "5"}

UNAUTHORIZED = {401: "The request has no valid bearer token."}
UNREACHABLE = {
    503: "A part of the server does not answer; it may be restarting.",
    504: f"The request took longer than {TIMEOUT_S:.0f} s.",
}
BODY_ERRORS = {
    400: "The body is not valid JSON or msgpack.",
    408: f"The body did not arrive within {BODY_TIMEOUT_S:.0f} s.",
    413: f"The body is larger than {MAX_BODY_BYTES} bytes.",
    415: "The body is neither JSON nor msgpack.",
}
ERRORS = {
    **BODY_ERRORS,
    **UNAUTHORIZED,
    402: "The server's budget is used up.",
    404: "The task does not exist.",
    422: "The body does not match the schema, or a prompt lacks placeholders of the task's template.",
    502: "The task model failed, or too many examples stayed unscored.",
    **UNREACHABLE,
}


def error_replies(texts: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    """Error replies in the form that FastAPI needs for the OpenAPI schema."""
    return {status: {"model": ErrorReply, "description": text} for status, text in texts.items()}


def explain(error: ValidationError) -> str:
    """Where a body does not match the schema, without quoting its content."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [
        f"{'.'.join(map(str, detail['loc'])) or 'body'}: {detail['msg']}"[:200] for detail in details[:_MAX_PROBLEMS]
    ]
    more = f"; and {len(details) - _MAX_PROBLEMS} more" if len(details) > _MAX_PROBLEMS else ""
    # A field's name may contain an unpaired surrogate, which a reply cannot.
    return ("; ".join(lines) + more).encode(errors="replace").decode()


async def reply_or_error(ask: Callable[[], Any]) -> Any:
    """The reply of the evaluator or of the runs' actor to a request.

    Raises:
        HTTPException: it refuses or fails, cannot be reached, or takes too long.
    """
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await reply(ask)
    except TimeoutError:
        raise HTTPException(504, f"the request took longer than {TIMEOUT_S:.0f} s") from None
    except Exception as failure:
        error = _http_error(failure.cause if isinstance(failure, RayTaskError) else failure)
        if error is None:
            raise
        raise error from None


def _http_error(failure: Exception) -> HTTPException | None:
    """The error for a failure; ``None`` for an unforeseen one."""
    match failure:
        case UnknownTask(args=(task, known)):
            return HTTPException(404, f"no task {task!r}; known tasks: {', '.join(known)}")
        case UnknownRun():
            return HTTPException(404, "there is no run with this ID")
        case NoResult():
            return HTTPException(409, "no prompt of the run has a score yet")
        case UnfitPrompt() | RefusedRun():
            return HTTPException(422, str(failure))
        case TooManyRuns():
            return HTTPException(429, str(failure), headers=_RETRY_LATER)
        case BudgetExhausted():
            return HTTPException(402, str(failure))
        case EvaluationError() | ModelError():
            return HTTPException(502, f"{type(failure).__name__}: {failure}")
        case OutOfReach():
            return HTTPException(503, str(failure), headers=_RETRY_LATER)
        case RayError() | RayServeException() if not isinstance(failure, RayTaskError):
            return HTTPException(503, "a part of the server does not answer", headers=_RETRY_LATER)
        case _:
            return None
