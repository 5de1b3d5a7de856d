"""Scoring prompts: the task model answers every example of a split, the task's scorer judges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gpo.concurrency import gather
from gpo.errors import EvaluationError, ModelRefused, ModelUnavailable, RefusalReason
from gpo.examples import Example
from gpo.models import ChatModel, Completion, Message, Sampling, Usage
from gpo.prompt import Prompt
from gpo.score import Score
from gpo.tasks import Split, Task


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A score and what it cost."""

    score: Score
    usage: Usage


class Evaluator(Protocol):
    """Scores prompts on one task."""

    async def evaluate(self, prompts: Sequence[Prompt], split: Split) -> Sequence[Evaluation]:
        """One evaluation per prompt, in order, on every example of the split.

        Raises:
            EvaluationError: too many examples stayed unscored.
            ModelRefused: the endpoint refuses every call (key, model name).
        """
        ...


@dataclass(frozen=True, slots=True)
class LocalEvaluator:
    """Calls the task model from this process, all examples at once; the model bounds its own concurrency.

    Args:
        max_unscored: share of the examples in [0, 1] that may stay unscored, because their calls failed for good;
            never all of them, since a score of nothing has no mean.
    """

    task: Task
    model: ChatModel
    sampling: Sampling
    max_unscored: float = 0.0

    async def evaluate(self, prompts: Sequence[Prompt], split: Split) -> Sequence[Evaluation]:
        examples = self.task.examples[split]
        # Prompt by prompt, so that a server which keeps the last prompts' state sees shared beginnings in a row.
        # A list within: a generator there would run when all prompts are through, and see the last of them only.
        rows = await gather(gather([self._judge(prompt, example) for example in examples]) for prompt in prompts)
        return [self._evaluation(split, row) for row in rows]

    def _evaluation(self, split: Split, verdicts: Sequence[tuple[float | None, Usage, str]]) -> Evaluation:
        score = Score(tuple(value for value, _, _ in verdicts))
        if not score.scored or score.num_unscored / score.num_examples > self.max_unscored:
            problem = next((problem for _, _, problem in verdicts if problem), "the split is empty")
            raise EvaluationError(
                f"{score.num_unscored} of {score.num_examples} {split} examples of task {self.task.name} stayed "
                f"unscored; evaluation.max_unscored tolerates a share of {self.max_unscored:g}, and never all; "
                f"the first failure: {problem}"
            )
        return Evaluation(score, sum((usage for _, usage, _ in verdicts), start=Usage()))

    async def _judge(self, prompt: Prompt, example: Example) -> tuple[float | None, Usage, str]:
        """The verdict, its cost, and what went wrong where there is no verdict."""
        messages = self.task.answer_format.messages(prompt, example)
        question = self.task.scorer.follow_up(example) if self.task.answer_format.rounds == 2 else None
        usage = Usage()
        try:
            reply = await self.model.complete(messages, self.sampling)
            usage += reply.usage
            if question is not None:
                reply = await self.model.complete([*messages, *_follow_up(reply, question)], self.sampling)
                usage += reply.usage
        except ModelRefused as refusal:
            if refusal.reason is not RefusalReason.REQUEST:
                raise
            return None, usage + Usage(failures=1), str(refusal)
        except ModelUnavailable as failure:
            return None, usage + Usage(failures=1, retries=failure.retries), str(failure)
        return self.task.scorer.score(reply.text, example), usage, ""


def _follow_up(reply: Completion, question: str) -> list[Message]:
    return [{"role": "assistant", "content": reply.text}, {"role": "user", "content": question}]
