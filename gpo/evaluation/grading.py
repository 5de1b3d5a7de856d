"""Who judges an answer: a scorer by its rules, or a language model by a rubric."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from gpo.data.example import Example
from gpo.errors import MalformedReply, ModelRefused, ModelUnavailable
from gpo.evaluation.metrics import Rubric, Scorer
from gpo.models.protocol import ChatModel, Sampling, Usage


@dataclass(frozen=True, slots=True)
class Grade:
    """A verdict on one answer.

    Attributes:
        value: in [0, 1]; ``None`` is unscored.
        usage: what judging cost.
        problem: what went wrong where there is no value; empty otherwise.
    """

    value: float | None
    usage: Usage = field(default_factory=Usage)
    problem: str = ""


class Grader(Protocol):
    """Judges the answers of one task."""

    async def grade(self, answer: str, example: Example) -> Grade:
        """How right the answer is.

        Raises:
            EvaluationError: a function of the user's own failed.
            ModelRefused: the judge's endpoint refuses every call (key, model name).
        """
        ...


@dataclass(frozen=True, slots=True)
class RuleGrader:
    """Judges by rule, at no cost."""

    scorer: Scorer

    async def grade(self, answer: str, example: Example) -> Grade:
        return Grade(self.scorer.score(answer, example))


@dataclass(frozen=True, slots=True)
class ModelGrader:
    """Has a language model judge by a rubric; an answer on which no verdict is to be had stays unscored."""

    rubric: Rubric
    model: ChatModel
    sampling: Sampling

    async def grade(self, answer: str, example: Example) -> Grade:
        try:
            reply = await self.model.complete(self.rubric.messages(answer, example), self.sampling)
        except ModelRefused as refusal:
            if refusal.reason.concerns_every_call:
                raise
            return Grade(None, Usage(failures=1), f"the judge: {refusal}")
        except ModelUnavailable as failure:
            return Grade(None, Usage(failures=1, retries=failure.retries), f"the judge: {failure}")
        try:
            return Grade(self.rubric.read(reply.answer), reply.usage)
        except MalformedReply as malformed:
            cut = "the judge's reply was cut off at max_tokens; raise models.judge.sampling.max_tokens"
            return Grade(None, reply.usage, cut if reply.truncated else str(malformed))
