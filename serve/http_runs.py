"""The routes below ``/v1/runs``: start runs, follow them, get their results, stop them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from pydantic import ValidationError

from serve.http_errors import BODY_ERRORS, UNAUTHORIZED, UNREACHABLE, explain, reply_or_error
from serve.http_limits import JSON, decode, encode, limited_body
from serve.http_schemas import ResultReply, RunReply, RunRequest, RunsReply, run_body
from serve.runs import Runs, new_key

KEY_HEADER = "Idempotency-Key"
_MAX_KEY = 200
_MAX_ENTRIES = 100_000
"""Longest list of a msgpack body; examples are a list."""
_UNKNOWN = {404: "There is no run with this ID."}
_START_ERRORS = {
    **BODY_ERRORS,
    **UNAUTHORIZED,
    422: f"The configuration cannot be used; the reply names the option. Or the {KEY_HEADER} was used for another one.",
    429: "Too many runs wait to be started.",
    **UNREACHABLE,
}

Errors = Callable[[dict[int, str]], dict[int | str, dict[str, Any]]]


def add_run_routes(api: FastAPI, runs: Runs, guarded: Sequence[Any], errors: Errors) -> None:
    """Add the routes.

    Args:
        guarded: dependencies that every request must satisfy.
        errors: turns texts of errors into the form that FastAPI needs.
    """

    def replied(request: Request, document: Mapping[str, Any], kind: type[Any], status: int = 200) -> Response:
        reply = encode(kind.model_validate(document).model_dump(mode="json"), request.headers.get("accept", JSON))
        reply.status_code = status
        return reply

    @api.post(
        "/v1/runs",
        dependencies=guarded,
        status_code=202,
        response_model=RunReply,
        openapi_extra=run_body(KEY_HEADER, _MAX_KEY),
        responses=errors(_START_ERRORS),
    )
    async def start(request: Request) -> Response:
        """Start a run. The body is a configuration; the reply contains the run's ID, and comes before the run begins.

        A request with the same Idempotency-Key and body as an earlier one starts no second run.
        """
        key = request.headers.get(KEY_HEADER)
        if key is not None and not 0 < len(key) <= _MAX_KEY:
            raise HTTPException(422, f"{KEY_HEADER} must have from 1 to {_MAX_KEY} characters")
        body = decode(await limited_body(request), request.headers.get("content-type", ""), _MAX_ENTRIES)
        try:
            RunRequest.model_validate(body)
        except ValidationError as error:
            raise HTTPException(422, explain(error)) from None
        key = key or new_key()  # the same for each repetition
        document = await reply_or_error(lambda: runs.submit(body, key))
        reply = replied(request, document, RunReply, 202)
        reply.headers["Location"] = f"/v1/runs/{document['id']}"
        return reply

    @api.get(
        "/v1/runs", dependencies=guarded, response_model=RunsReply, responses=errors({**UNAUTHORIZED, **UNREACHABLE})
    )
    async def listed(request: Request) -> Response:
        """The runs that were started here, the newest first."""
        return replied(request, {"runs": await reply_or_error(runs.listed)}, RunsReply)

    of_run: Mapping[str, Any] = {
        "dependencies": guarded,
        "responses": errors({**UNAUTHORIZED, **_UNKNOWN, **UNREACHABLE}),
    }

    @api.get("/v1/runs/{run_id}", response_model=RunReply, **of_run)
    async def status(request: Request, run_id: str) -> Response:
        """The progress of a run: steps, scores, spending and errors."""
        return replied(request, await reply_or_error(lambda: runs.status(run_id)), RunReply)

    @api.get(
        "/v1/runs/{run_id}/result",
        dependencies=guarded,
        response_model=ResultReply,
        responses=errors({**UNAUTHORIZED, **_UNKNOWN, 409: "No prompt of the run has a score yet.", **UNREACHABLE}),
    )
    async def result(request: Request, run_id: str) -> Response:
        """The best prompt of each task with its scores, and the summary. While the run works, those so far."""
        return replied(request, await reply_or_error(lambda: runs.result(run_id)), ResultReply)

    @api.delete("/v1/runs/{run_id}", response_model=RunReply, **of_run)
    async def stop(request: Request, run_id: str) -> Response:
        """Stop a run for good, and reply with its status. Finished work is kept; an ended run does not change."""
        return replied(request, await reply_or_error(lambda: runs.stop(run_id)), RunReply)
