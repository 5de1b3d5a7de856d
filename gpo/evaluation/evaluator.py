"""Scoring prompts: the task model answers every example of a split, a grader judges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gpo.concurrency import gather
from gpo.data.example import Example
from gpo.data.task import Split, Task
from gpo.errors import ModelRefused, ModelUnavailable, PromptUnscored
from gpo.evaluation.grading import Grader
from gpo.evaluation.metrics.scorer import can_read
from gpo.models.protocol import ChatModel, Completion, Message, Sampling, Usage
from gpo.prompt import Prompt
from gpo.score import Flaws, Score
from gpo.trajectory import Spending


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A score and what it cost: ``usage`` of the task model, ``judge`` of the model that judged, if one did."""

    score: Score
    usage: Usage
    judge: Usage = field(default_factory=Usage)

    @property
    def spending(self) -> Spending:
        """What it cost, by role."""
        return Spending(task=self.usage, judge=self.judge)


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer of the task model to one example, judged.

    Attributes:
        text: the answer; where a second round asked for the bare answer, that follows. Empty where none came.
        value: the verdict in [0, 1]; ``None`` is unscored.
        spending: what answer and verdict cost.
        problem: what went wrong where there is no verdict; empty otherwise.
        is_refused: whether the endpoint refused the request, rather than being unavailable.
        flaws: what the answer lacks.
    """

    text: str
    value: float | None
    spending: Spending
    problem: str = ""
    is_refused: bool = False
    flaws: Flaws = field(default_factory=Flaws)


class Evaluator(Protocol):
    """Scores prompts on one task."""

    async def evaluate(
        self, prompts: Sequence[Prompt], split: Split, indices: Sequence[int] | None = None
    ) -> Sequence[Evaluation]:
        """One evaluation per prompt, in order, on every example of the split.

        Args:
            indices: positions of examples in the split, from 0: only these are asked, and the scores are in their
                order. Then more may stay unscored than of the whole split, as long as all of it can be within bounds.

        Raises:
            ValueError: there is no example at an index.
            PromptUnscored: too many examples stayed unscored.
            EvaluationError: a function of the user's own failed.
            ModelRefused: the endpoint refuses every call (key, model name).
        """
        ...


class Answerer(Protocol):
    """Shows what the task model answers on one task."""

    async def answer(self, prompt: Prompt, split: Split, indices: Sequence[int]) -> Sequence[Answered]:
        """One answer per index, in order; failed calls are among them, unscored.

        Args:
            indices: positions of examples in the split, from 0.

        Raises:
            ValueError: there is no example at an index.
            EvaluationError: a function of the user's own failed.
            ModelRefused: the endpoint refuses every call (key, model name).
        """
        ...


@dataclass(frozen=True, slots=True)
class LocalEvaluator:
    """Calls the task model from this process, all examples at once; the model bounds its own concurrency.

    It is an ``Evaluator`` and an ``Answerer``.

    Args:
        grader: judges the answers, by the task's scorer.
        max_unscored: share of the examples in [0, 1] that may stay unscored, because their calls failed for good;
            never all of them, since a score of nothing has no mean.
    """

    task: Task
    model: ChatModel
    sampling: Sampling
    grader: Grader
    max_unscored: float = 0.0

    async def evaluate(
        self, prompts: Sequence[Prompt], split: Split, indices: Sequence[int] | None = None
    ) -> Sequence[Evaluation]:
        examples = self.task.examples[split] if indices is None else self._chosen(split, indices)
        # Prompt by prompt, so that a server which keeps the last prompts' state sees shared beginnings in a row.
        # A list within: a generator there would run when all prompts are through, and see the last of them only.
        rows = await gather(gather([self._answered(prompt, example) for example in examples]) for prompt in prompts)
        return [self._evaluation(split, row, is_whole=indices is None) for row in rows]

    async def answer(self, prompt: Prompt, split: Split, indices: Sequence[int]) -> Sequence[Answered]:
        return await gather(self._answered(prompt, example) for example in self._chosen(split, indices))

    def _chosen(self, split: Split, indices: Sequence[int]) -> list[Example]:
        examples = self.task.examples[split]
        for index in indices:
            if not 0 <= index < len(examples):
                raise ValueError(
                    f"task {self.task.name} has no {split} example {index}; they are counted from 0, and there are "
                    f"{len(examples)}"
                )
        return [examples[index] for index in indices]

    def _evaluation(self, split: Split, answers: Sequence[Answered], *, is_whole: bool) -> Evaluation:
        flaws = sum((answer.flaws for answer in answers), start=Flaws())
        score = Score(tuple(answer.value for answer in answers), flaws=flaws)
        size = len(self.task.examples[split])
        if (is_whole and not score.scored) or (size and score.num_unscored / size > self.max_unscored):
            problem = next((answer.problem for answer in answers if answer.problem), "the split is empty")
            is_refused = all(answer.is_refused for answer in answers if answer.problem)
            spent = sum((answer.spending for answer in answers), start=Spending())
            raise PromptUnscored(
                f"{score.num_unscored} of {size} {split} examples of task {self.task.name} stayed "
                f"unscored; evaluation.max_unscored tolerates a share of {self.max_unscored:g}, and never all; "
                f"the first failure: {problem}",
                is_refused,
                spent,
            )
        spending = sum((answer.spending for answer in answers), start=Spending())
        return Evaluation(score, spending.task, spending.judge)

    async def _answered(self, prompt: Prompt, example: Example) -> Answered:
        messages = self.task.answer_format.messages(prompt, example)
        question = self.task.scorer.follow_up(example) if self.task.answer_format.rounds == 2 else None
        usage, text = Usage(), ""
        try:
            reply = await self.model.complete(messages, self.sampling)
            usage, text = usage + reply.usage, reply.text
            if question is not None and reply.answer.strip():
                reply = await self.model.complete([*messages, *_follow_up(reply, question)], self.sampling)
                usage, text = usage + reply.usage, f"{text}\n\nAsked for the final answer alone: {reply.text}"
        except ModelRefused as refusal:
            if refusal.reason.concerns_every_call:
                raise
            return Answered(text, None, Spending(task=usage + Usage(failures=1)), str(refusal), is_refused=True)
        except ModelUnavailable as failure:
            failed = Usage(failures=1, retries=failure.retries)
            return Answered(text, None, Spending(task=usage + failed), str(failure))
        grade = await self.grader.grade(reply.answer, example)
        spending = Spending(task=usage, judge=grade.usage)
        return Answered(text, grade.value, spending, grade.problem, flaws=self._flaws(reply, example, grade.value))

    def _flaws(self, reply: Completion, example: Example, value: float | None) -> Flaws:
        is_empty = not reply.answer.strip()
        if reply.truncated and (is_empty or value == 0):
            return Flaws(cut=1)
        if is_empty:
            return Flaws(empty=1)
        return Flaws(unreadable=int(not can_read(self.task.scorer, reply.answer, example)))


def _follow_up(reply: Completion, question: str) -> list[Message]:
    return [{"role": "assistant", "content": reply.answer}, {"role": "user", "content": question}]
