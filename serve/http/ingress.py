"""The evaluator over HTTP: ``POST /v1/evaluate``, in JSON or msgpack."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import HTTPBearer
from pydantic import ValidationError
from ray import serve as ray_serve
from ray.serve.handle import DeploymentHandle

from gpo.evaluation.evaluator import Evaluation
from serve.http.bodies import JSON, decoded, encoded
from serve.http.limits import HttpLimits, limited_body
from serve.http.page import page
from serve.http.refusals import OUT_OF_REACH, REFUSALS, UNAUTHORIZED, described, explained, replied
from serve.http.schemas import EvaluateReply, EvaluateRequest, TasksReply, evaluate_body, score_reply

TOKEN_VARIABLE = "GPO_SERVE_TOKEN"  # noqa: S105  # a name, not a token
"""Environment variable with the bearer token."""


def build_api(evaluator: DeploymentHandle[Any], token: str | None) -> FastAPI:
    """The HTTP interface over an evaluator.

    Args:
        token: what every request must carry as a bearer token; ``None`` asks for none.
    """
    api = FastAPI(
        title="GPO evaluator",
        version="1",
        description="Scores prompts on the tasks of a configuration. Bodies are JSON or msgpack, by Content-Type; "
        "replies likewise, by Accept.",
        # Both would load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
    )
    api.add_middleware(HttpLimits, loopback_only=token is None)
    api.add_exception_handler(Exception, _failed)
    # The first of the two only describes the token in the OpenAPI page.
    guarded = [Depends(HTTPBearer(auto_error=False)), Depends(_bearer(token))] if token else []

    @api.get("/health")
    async def health() -> dict[str, str]:
        """Whether the interface is up."""
        return {"status": "ok"}

    @api.get("/docs", include_in_schema=False)
    async def describe() -> HTMLResponse:
        """The interface, described for people."""
        return HTMLResponse(page(api.openapi()))

    def refusals(known: dict[int, str]) -> dict[int | str, dict[str, Any]]:
        return described({status: text for status, text in known.items() if token or status not in UNAUTHORIZED})

    @api.get("/v1/tasks", dependencies=guarded, responses=refusals({**UNAUTHORIZED, **OUT_OF_REACH}))
    async def tasks() -> TasksReply:
        """The tasks that can be scored on."""
        return TasksReply(tasks=await replied(lambda: evaluator.sizes.remote()))

    @api.post(
        "/v1/evaluate",
        dependencies=guarded,
        response_model=EvaluateReply,
        openapi_extra=evaluate_body(),
        responses=refusals(REFUSALS),
    )
    async def evaluate(request: Request) -> Response:
        """Score one or more prompts on every example of a split."""
        body = decoded(await limited_body(request), request.headers.get("content-type", ""))
        try:
            wanted = EvaluateRequest.model_validate(body)
        except ValidationError as error:
            raise HTTPException(422, explained(error)) from None
        if not wanted.all_prompts:
            raise HTTPException(422, "give prompt or prompts")
        scores = await _scores(evaluator, wanted)
        return encoded(scores.model_dump(mode="json"), request.headers.get("accept", JSON))

    return api


def _bearer(token: str) -> Callable[[Request], Awaitable[None]]:
    known = hashlib.sha256(token.encode()).digest()

    async def check(request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        # Compared in constant time: how long a refusal takes must not tell how much of a guess was right, nor, by way
        # of the digests, how long the token is.
        if not hmac.compare_digest(hashlib.sha256(given.encode()).digest(), known) or scheme.lower() != "bearer":
            raise HTTPException(401, "a valid bearer token is needed", headers={"WWW-Authenticate": "Bearer"})

    return check


async def _failed(_: Request, __: Exception) -> Response:
    """What nobody foresaw: it stands in the replica's log, and not in the reply."""
    return JSONResponse({"detail": "internal error; the server's log tells more"}, 500)


async def _scores(evaluator: DeploymentHandle[Any], wanted: EvaluateRequest) -> EvaluateReply:
    prompts = wanted.all_prompts
    evaluations: Sequence[Evaluation] = await replied(
        lambda: evaluator.evaluate.remote(wanted.task, prompts, wanted.split)
    )
    scores = [score_reply(prompt, evaluation) for prompt, evaluation in zip(prompts, evaluations, strict=True)]
    return EvaluateReply(task=wanted.task, split=wanted.split, scores=scores)


class Ingress:
    """The HTTP interface as a deployment.

    Args:
        evaluator: handle of the evaluator.
        guarded: ask every request for the token in ``GPO_SERVE_TOKEN``, which each replica reads for itself: the
            token never travels through Ray.
    """

    def __init__(self, evaluator: DeploymentHandle[Any], guarded: bool) -> None:
        self._evaluator = evaluator
        self._token = os.environ.get(TOKEN_VARIABLE) if guarded else None
        if guarded and not self._token:
            raise RuntimeError(f"{TOKEN_VARIABLE} is not set on the node of the ingress replica")

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build_api(self._evaluator, self._token)


# `Any`: Serve's decorators erase the class's type.
_Deployment: Any = ray_serve.deployment(
    ray_serve.ingress()(Ingress), name="ingress", max_ongoing_requests=1000, ray_actor_options={"num_cpus": 0.1}
)


def ingress_app(evaluator: ray_serve.Application, *, guarded: bool) -> ray_serve.Application:
    """The evaluator with the HTTP interface before it, to hand to ``ray_serve.run``."""
    app: ray_serve.Application = _Deployment.bind(evaluator, guarded)
    return app
