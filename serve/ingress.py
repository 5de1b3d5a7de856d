"""The HTTP interface: ``POST /v1/evaluate`` scores prompts, ``/v1/runs`` starts runs; in JSON or msgpack."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from html import escape
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import HTTPBearer
from pydantic import ValidationError
from ray import serve as ray_serve
from ray.serve.handle import DeploymentHandle

from gpo.evaluation.evaluator import Evaluation
from serve.http_errors import ERRORS, UNAUTHORIZED, UNREACHABLE, error_replies, explain, reply_or_error
from serve.http_limits import JSON, HttpLimits, decode, encode, limited_body
from serve.http_runs import add_run_routes
from serve.http_schemas import EvaluateReply, EvaluateRequest, TasksReply, evaluate_body, score_reply
from serve.runs import Runs, RunsActor

TOKEN_VARIABLE = "GPO_SERVE_TOKEN"  # noqa: S105  # a name, not a token
"""Environment variable with the bearer token."""

_STYLE = "body{font:16px/1.5 sans-serif;max-width:50em;margin:2em auto;padding:0 1em}code,pre{background:#eee}"


def build_api(evaluator: DeploymentHandle[Any], token: str | None, runs: Runs | None = None) -> FastAPI:
    """The HTTP interface over an evaluator.

    Args:
        token: bearer token that every request must have; ``None`` needs none.
        runs: carries out runs; without it, there are no routes for them.
    """
    api = FastAPI(
        title="GPO evaluator",
        version="1",
        description="Scores prompts on the tasks of a configuration, and starts runs. Bodies are JSON or msgpack, by "
        "Content-Type; replies likewise, by Accept.",
        # Both would load scripts from other hosts.
        docs_url=None,
        redoc_url=None,
    )
    api.add_middleware(HttpLimits, loopback_only=token is None)
    api.add_exception_handler(Exception, _internal_error)
    # The first dependency only describes the token in the OpenAPI schema.
    guarded = [Depends(HTTPBearer(auto_error=False)), Depends(_bearer(token))] if token else []

    @api.get("/health")
    async def health() -> dict[str, str]:
        """Whether the interface is up."""
        return {"status": "ok"}

    @api.get("/docs", include_in_schema=False)
    async def describe() -> HTMLResponse:
        """A description of the interface for people."""
        return HTMLResponse(_page(api.openapi()))

    def errors(texts: dict[int, str]) -> dict[int | str, dict[str, Any]]:
        return error_replies({status: text for status, text in texts.items() if token or status not in UNAUTHORIZED})

    @api.get("/v1/tasks", dependencies=guarded, responses=errors({**UNAUTHORIZED, **UNREACHABLE}))
    async def tasks() -> TasksReply:
        """The tasks that prompts can be scored on."""
        return TasksReply(tasks=await reply_or_error(lambda: evaluator.sizes.remote()))

    @api.post(
        "/v1/evaluate",
        dependencies=guarded,
        response_model=EvaluateReply,
        openapi_extra=evaluate_body(),
        responses=errors(ERRORS),
    )
    async def evaluate(request: Request) -> Response:
        """Score one or more prompts on every example of a split."""
        body = decode(await limited_body(request), request.headers.get("content-type", ""))
        try:
            query = EvaluateRequest.model_validate(body)
        except ValidationError as error:
            raise HTTPException(422, explain(error)) from None
        if not query.all_prompts:
            raise HTTPException(422, "give prompt or prompts")
        scores = await _scores(evaluator, query)
        return encode(scores.model_dump(mode="json"), request.headers.get("accept", JSON))

    if runs is not None:
        add_run_routes(api, runs, guarded, errors)
    return api


def _bearer(token: str) -> Callable[[Request], Awaitable[None]]:
    known = hashlib.sha256(token.encode()).digest()

    async def check(request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        # Compared in constant time, so that the duration reveals no part of the token; as digests, so that it does not
        # reveal the token's length.
        if not hmac.compare_digest(hashlib.sha256(given.encode()).digest(), known) or scheme.lower() != "bearer":
            raise HTTPException(401, "a valid bearer token is needed", headers={"WWW-Authenticate": "Bearer"})

    return check


async def _internal_error(_: Request, __: Exception) -> Response:
    """The reply to an unforeseen error, which is in the replica's log and not in the reply."""
    return JSONResponse({"detail": "internal error; see the server's log"}, 500)


async def _scores(evaluator: DeploymentHandle[Any], query: EvaluateRequest) -> EvaluateReply:
    prompts = query.all_prompts
    evaluations: Sequence[Evaluation] = await reply_or_error(
        lambda: evaluator.evaluate.remote(query.task, prompts, query.split)
    )
    scores = [score_reply(prompt, evaluation) for prompt, evaluation in zip(prompts, evaluations, strict=True)]
    return EvaluateReply(task=query.task, split=query.split, scores=scores)


def _page(description: Mapping[str, Any]) -> str:
    """An HTML page without scripts for an OpenAPI description."""
    info = description["info"]
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])}</title>',
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>{escape(info['title'])}</h1>",
        f"<p>{escape(info['description'])}</p>",
        '<p>Schemas of requests and replies, for programs: <a href="openapi.json">openapi.json</a>.</p>',
    ]
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            parts += _operation(f"{method.upper()} {path}", operation)
    return "\n".join([*parts, "</body></html>\n"])


def _operation(name: str, operation: Mapping[str, Any]) -> list[str]:
    needs = "<p>Needs a bearer token.</p>" if operation.get("security") else ""
    rows = "".join(
        f"<li><code>{escape(status)}</code> {escape(reply['description'])}</li>"
        for status, reply in operation["responses"].items()
    )
    return [f"<h2><code>{escape(name)}</code></h2>", f"<p>{escape(operation['description'])}</p>{needs}<ul>{rows}</ul>"]


class Ingress:
    """The HTTP interface as a deployment.

    Args:
        evaluator: handle of the evaluator.
        guarded: whether every request needs the token in ``GPO_SERVE_TOKEN``. Each replica reads the variable itself,
            so that the token is never sent through Ray.
        runs: see ``build_api``.
    """

    def __init__(self, evaluator: DeploymentHandle[Any], guarded: bool, runs: RunsActor | None = None) -> None:
        self._evaluator, self._runs = evaluator, runs
        self._token = os.environ.get(TOKEN_VARIABLE) if guarded else None
        if guarded and not self._token:
            raise RuntimeError(f"{TOKEN_VARIABLE} is not set on the node of the ingress replica")

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build_api(self._evaluator, self._token, self._runs)


# `Any`: Serve's decorators erase the class's type.
_Deployment: Any = ray_serve.deployment(
    ray_serve.ingress()(Ingress), name="ingress", max_ongoing_requests=1000, ray_actor_options={"num_cpus": 0.1}
)


def ingress_app(
    evaluator: ray_serve.Application, *, guarded: bool, runs: RunsActor | None = None
) -> ray_serve.Application:
    """The evaluator behind the HTTP interface, for ``ray_serve.run``."""
    app: ray_serve.Application = _Deployment.bind(evaluator, guarded, runs)
    return app
