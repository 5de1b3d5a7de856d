"""What the HTTP interface takes and replies."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from gpo.data.task import Split
from gpo.evaluation.evaluator import Evaluation
from gpo.models.protocol import Usage
from gpo.prompt import Prompt
from gpo.score import finite
from serve.http.bodies import JSON, MSGPACK

MAX_PROMPTS = 64
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


def evaluate_body() -> dict[str, Any]:
    """The request's body, as the OpenAPI page describes it."""
    schema = EvaluateRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)  # those stand in the page by way of the reply
    return {"requestBody": {"required": True, "content": {media: {"schema": schema} for media in (JSON, MSGPACK)}}}


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
