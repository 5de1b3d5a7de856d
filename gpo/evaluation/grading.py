"""Grading of answers: by a scorer's rules, or by a language model with a rubric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gpo.data.example import Example
from gpo.errors import MalformedReply, ModelRefused, ModelUnavailable
from gpo.evaluation.metrics import Rubric, Scorer
from gpo.evaluation.metrics.scorer import score_with_reason
from gpo.models.protocol import NO_USAGE, ChatModel, Sampling, Usage, given_up


@dataclass(frozen=True, slots=True)
class Grade:
    """A verdict on one answer.

    Attributes:
        value: in [0, 1]; ``None`` means unscored.
        usage: cost of the judge's calls.
        problem: why there is no value, else empty.
        is_refused: whether the judge's endpoint refused the request, rather than being unavailable.
        reason: why the value is what it is, as a custom metric or the judge says; else empty.
    """

    value: float | None
    usage: Usage = NO_USAGE
    problem: str = ""
    is_refused: bool = False
    reason: str = ""


class Grader(Protocol):
    """Grades the answers of one task."""

    async def grade(self, answer: str, example: Example) -> Grade:
        """Grade one answer.

        Raises:
            EvaluationError: a custom function failed.
            ModelRefused: the judge's endpoint refuses every call (wrong key or model name).
        """
        ...


@dataclass(frozen=True, slots=True)
class RuleGrader:
    """Grades with a scorer, without model calls."""

    scorer: Scorer

    async def grade(self, answer: str, example: Example) -> Grade:
        value, reason = score_with_reason(self.scorer, answer, example)
        return Grade(value, reason=reason)


@dataclass(frozen=True, slots=True)
class ModelGrader:
    """Lets a language model grade with a rubric; an answer without a valid verdict stays unscored."""

    rubric: Rubric
    model: ChatModel
    sampling: Sampling

    async def grade(self, answer: str, example: Example) -> Grade:
        try:
            reply = await self.model.complete(self.rubric.messages(answer, example), self.sampling)
        except ModelRefused as refusal:
            if refusal.reason.concerns_every_call:
                raise
            return Grade(None, given_up(refusal), f"the judge: {refusal}", is_refused=True)
        except ModelUnavailable as failure:
            return Grade(None, given_up(failure), f"the judge: {failure}")
        try:
            value = self.rubric.read(reply.answer)
            return Grade(value, reply.usage, reason=self.rubric.reason(reply.answer))
        except MalformedReply as malformed:
            cut = "the judge's reply was cut off at max_tokens; raise models.judge.sampling.max_tokens"
            return Grade(None, reply.usage, cut if reply.truncated else str(malformed))
