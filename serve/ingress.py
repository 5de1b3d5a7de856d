"""The evaluator over HTTP: ``POST /v1/evaluate``, in JSON or msgpack."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from ray import serve as ray_serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from gpo.errors import BudgetExhausted, EvaluationError, ModelError, OutOfReach
from gpo.evaluation import Evaluation
from gpo.models import Usage
from gpo.prompt import Prompt
from gpo.score import finite
from gpo.tasks import Split
from serve.client import reply
from serve.evaluator import UnknownTask
from serve.http_bodies import JSON, MSGPACK, decoded, encoded
from serve.http_limits import BODY_TIMEOUT_S, MAX_BODY_BYTES, HttpLimits, limited_body
from serve.http_page import page

TOKEN_VARIABLE = "GPO_SERVE_TOKEN"  # noqa: S105  # a name, not a token
"""Environment variable with the bearer token."""

MAX_PROMPTS = 64
TIMEOUT_S = 3600.0


PromptText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100_000)]


class EvaluateRequest(BaseModel):
    """Prompts to score."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    task: Annotated[str, Field(min_length=1, max_length=100)]
    """A task that the evaluator holds; ``GET /v1/tasks`` lists them."""
    split: Split = Split.VAL
    """The examples to score on."""
    prompt: PromptText | None = None
    """One prompt; white space around it is dropped."""
    prompts: Annotated[list[PromptText], Field(max_length=MAX_PROMPTS)] = []
    """Or several, scored side by side."""

    @property
    def all_prompts(self) -> list[Prompt]:
        """Every prompt that was given, in order."""
        return [Prompt(text) for text in ([self.prompt] if self.prompt is not None else []) + self.prompts]


class UsageReply(BaseModel):
    """What the calls cost."""

    requests: int
    cached: int
    retries: int
    failures: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    empty: int
    truncated: int
    unmetered: int


class ScoreReply(BaseModel):
    """How one prompt did."""

    prompt: str
    mean: float | None
    """Mean over the scored examples, in [0, 1]; null where none could be scored."""
    stderr: float | None
    """Standard error of the mean; null below two scored examples."""
    values: list[float | None]
    """One value per example, in the order of the file; null is unscored."""
    usage: UsageReply
    judge: UsageReply | None
    """What judging cost; null where no language model judges."""


class EvaluateReply(BaseModel):
    """One score per prompt, in the order of the request."""

    task: str
    split: Split
    scores: list[ScoreReply]


class ErrorReply(BaseModel):
    """Every reply with a status of 400 or above."""

    detail: str
    """What is wrong, in a line for people."""


class TasksReply(BaseModel):
    """The tasks that can be scored on, with the number of examples of each split."""

    tasks: dict[str, dict[Split, int]]


def _body() -> dict[str, Any]:
    schema = EvaluateRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)  # those stand in the page by way of the reply
    return {"requestBody": {"required": True, "content": {media: {"schema": schema} for media in (JSON, MSGPACK)}}}


_UNAUTHORIZED = {401: "A valid bearer token is needed."}
_OUT_OF_REACH = {
    503: "A part of the server does not answer; it may be coming up again.",
    504: f"Not done within {TIMEOUT_S:.0f} s.",
}
_REFUSALS = {
    400: "The body is not valid JSON or msgpack.",
    **_UNAUTHORIZED,
    402: "A budget of the server's is spent.",
    404: "There is no such task.",
    408: f"The body did not arrive within {BODY_TIMEOUT_S:.0f} s.",
    413: f"The body is larger than {MAX_BODY_BYTES} bytes.",
    415: "The body is neither JSON nor msgpack.",
    422: "The body does not fit the schema.",
    502: "The task model could not be asked, or too many examples stayed unscored.",
    **_OUT_OF_REACH,
}


def _described(refusals: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorReply, "description": text} for status, text in refusals.items()}


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
        return _described({status: text for status, text in known.items() if token or status not in _UNAUTHORIZED})

    @api.get("/v1/tasks", dependencies=guarded, responses=refusals({**_UNAUTHORIZED, **_OUT_OF_REACH}))
    async def tasks() -> TasksReply:
        """The tasks that can be scored on."""
        return TasksReply(tasks=await _replied(lambda: evaluator.sizes.remote()))

    @api.post(
        "/v1/evaluate",
        dependencies=guarded,
        response_model=EvaluateReply,
        openapi_extra=_body(),
        responses=refusals(_REFUSALS),
    )
    async def evaluate(request: Request) -> Response:
        """Score one or more prompts on every example of a split."""
        body = decoded(await limited_body(request), request.headers.get("content-type", ""))
        try:
            wanted = EvaluateRequest.model_validate(body)
        except ValidationError as error:
            raise HTTPException(422, _explained(error)) from None
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


def _explained(error: ValidationError) -> str:
    """Where a body does not fit, without what stands there."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [f"{'.'.join(map(str, detail['loc'])) or 'body'}: {detail['msg']}"[:200] for detail in details[:_SHOWN]]
    more = f"; and {len(details) - _SHOWN} more" if len(details) > _SHOWN else ""
    # A field's name may hold half a character, which no reply can.
    return ("; ".join(lines) + more).encode(errors="replace").decode()


_SHOWN = 5


async def _failed(_: Request, __: Exception) -> Response:
    """What nobody foresaw: it stands in the replica's log, and not in the reply."""
    return JSONResponse({"detail": "internal error; the server's log tells more"}, 500)


async def _scores(evaluator: DeploymentHandle[Any], wanted: EvaluateRequest) -> EvaluateReply:
    prompts = wanted.all_prompts
    evaluations: Sequence[Evaluation] = await _replied(
        lambda: evaluator.evaluate.remote(wanted.task, prompts, wanted.split)
    )
    scores = [score_reply(prompt, evaluation) for prompt, evaluation in zip(prompts, evaluations, strict=True)]
    return EvaluateReply(task=wanted.task, split=wanted.split, scores=scores)


async def _replied(ask: Callable[[], Any]) -> Any:
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


_LATER = {"Retry-After": "5"}


def score_reply(prompt: Prompt, evaluation: Evaluation) -> ScoreReply:
    """How a prompt did, in the form of a reply."""
    score = evaluation.score
    return ScoreReply(
        prompt=prompt.text,
        mean=finite(score.mean),
        stderr=finite(score.stderr),
        values=list(score.values_E),
        usage=UsageReply.model_validate(evaluation.usage, from_attributes=True),
        judge=UsageReply.model_validate(evaluation.judge, from_attributes=True)
        if evaluation.judge != Usage()
        else None,
    )


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
