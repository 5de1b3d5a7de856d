"""Requests and replies of the HTTP interface."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from gpo.data.task import Split
from gpo.evaluation.evaluator import Evaluation
from gpo.intervals import LEVEL, interval
from gpo.models.protocol import Usage
from gpo.prompt import Prompt
from gpo.score import finite
from serve.http_limits import JSON, MSGPACK

MAX_PROMPTS = 64
PromptText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100_000)]


class EvaluateRequest(BaseModel):
    """Prompts to score."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    task: Annotated[str, Field(min_length=1, max_length=100)]
    """Name of a task; ``GET /v1/tasks`` lists them."""
    split: Split = Split.VAL
    """The examples to score on."""
    prompt: PromptText | None = None
    """One prompt; surrounding white space is removed."""
    prompts: Annotated[list[PromptText], Field(max_length=MAX_PROMPTS)] = []
    """Or several, scored side by side."""

    @property
    def all_prompts(self) -> list[Prompt]:
        """All prompts of the request, in order."""
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


class IntervalReply(BaseModel):
    """A confidence interval, in [0, 1]."""

    level: float
    """How often such an interval contains the true mean on new examples."""
    low: float
    high: float


class ScoreReply(BaseModel):
    """The score of one prompt."""

    prompt: str
    mean: float | None
    """Mean over the scored examples, in [0, 1]; null if none could be scored."""
    stderr: float | None
    """Standard error of the mean; null for fewer than two scored examples."""
    interval: IntervalReply | None
    """Where the mean on new examples probably is; null if no example could be scored."""
    scored: int
    """Number of scored examples."""
    values: list[float | None]
    """One value per example, in the order of the file; null is unscored."""
    usage: UsageReply
    judge: UsageReply | None
    """What judging cost; null if no language model judges."""


class EvaluateReply(BaseModel):
    """One score per prompt, in the order of the request."""

    task: str
    split: Split
    scores: list[ScoreReply]


class ErrorReply(BaseModel):
    """Every reply with a status of 400 or above."""

    detail: str
    """What is wrong, in one line."""


class TasksReply(BaseModel):
    """The tasks that prompts can be scored on, with the number of examples in each split."""

    tasks: dict[str, dict[Split, int]]


class RunRequest(BaseModel):
    """A configuration, as for ``gpo run``. What the sections contain is checked after this."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)

    tasks: Annotated[list[dict[str, Any]], Field(min_length=1)]
    """The tasks. Their ``data`` may hold examples as objects: lists ``train``, ``val`` and ``test``, or a list ``rows``
    to be divided."""
    models: dict[str, Any] | None = None
    """The language models, at endpoints of the service. Default: the service's own."""
    run: dict[str, Any] | None = None
    """Name and seeds."""
    preset: str | None = None
    """Defaults for options that are left out."""
    optimizer: dict[str, Any] | None = None
    """The search."""
    evaluation: dict[str, Any] | None = None
    """How prompts are scored."""
    budget: dict[str, Any] | None = None
    """Bounds on what the run may spend, within those of the service."""
    stop: dict[str, Any] | None = None
    """When the search ends early."""


class SpentReply(BaseModel):
    """What answered calls cost; cached calls cost nothing."""

    calls: int
    tokens: int
    usd: float


class TrajectoryReply(BaseModel):
    """The progress of the search for one task and seed."""

    task: str
    seed: int
    steps: int
    of_steps: int | None
    """Steps that it takes in all; null if that depends on the data."""
    initial: float | None
    """Mean of the initial prompt on ``val``, in [0, 1]; null before it is scored."""
    best: float | None
    """Mean of the best prompt on ``val``."""
    done: bool
    stopped_by: str | None
    """Why it stopped early; null if it did not."""
    error: str | None


class RunReply(BaseModel):
    """The status of a run."""

    id: str
    status: Literal["pending", "running", "completed", "interrupted", "budget_exhausted", "failed"]
    """``pending``: it waits for its turn. ``interrupted``: it was stopped by a client, or by ``gpo stop``."""
    accepted_at: str
    """Time of the request, in ISO 8601."""
    steps: int
    """Steps of all trajectories so far."""
    of_steps: int | None
    """Steps of all trajectories in all; null until the run begins."""
    best: dict[str, float | None]
    """Task → mean of the best prompt so far on ``val``, in [0, 1]."""
    spent: SpentReply
    wall_s: float
    """Seconds of work."""
    ended_by: str | None
    """The budget that is used up; null if none is."""
    error: str | None
    """Why the run failed as a whole; null if it did not."""
    trajectories: list[TrajectoryReply]
    """One for each task and seed; empty in the list of all runs."""


class RunsReply(BaseModel):
    """All runs that were started over HTTP, the newest first."""

    runs: list[RunReply]


class ResultReply(BaseModel):
    """What a run found."""

    id: str
    status: str
    best: dict[str, dict[str, Any]]
    """Task → its best prompt by ``val`` with its scores, as in ``best_prompts.json``."""
    summary: dict[str, Any]
    """As in ``summary.json``."""


def run_body(key_header: str, max_key: int) -> dict[str, Any]:
    """The request that starts a run, in the OpenAPI schema."""
    schema = RunRequest.model_json_schema()
    header = {
        "name": key_header,
        "in": "header",
        "required": False,
        "description": "Chosen by the client. A request that repeats it starts no second run.",
        "schema": {"type": "string", "minLength": 1, "maxLength": max_key},
    }
    body = {"required": True, "content": {media: {"schema": schema} for media in (JSON, MSGPACK)}}
    return {"parameters": [header], "requestBody": body}


def evaluate_body() -> dict[str, Any]:
    """The request's body in the OpenAPI schema."""
    schema = EvaluateRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)  # the reply's schema defines them already
    return {"requestBody": {"required": True, "content": {media: {"schema": schema} for media in (JSON, MSGPACK)}}}


def score_reply(prompt: Prompt, evaluation: Evaluation) -> ScoreReply:
    """The reply for one prompt."""
    score = evaluation.score
    low, high = interval(score)
    return ScoreReply(
        prompt=prompt.text,
        mean=finite(score.mean),
        stderr=finite(score.stderr),
        interval=IntervalReply(level=LEVEL, low=round(low, 4), high=round(high, 4)) if score.scored else None,
        scored=len(score.scored),
        values=list(score.values_E),
        usage=UsageReply.model_validate(evaluation.usage, from_attributes=True),
        judge=UsageReply.model_validate(evaluation.judge, from_attributes=True)
        if evaluation.judge != Usage()
        else None,
    )
