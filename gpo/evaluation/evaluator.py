"""Scoring prompts: the task model answers the examples of a split, and a grader judges the answers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from gpo.data.example import Example
from gpo.data.task import Split, Task
from gpo.errors import ModelRefused, ModelUnavailable, PromptUnscored
from gpo.evaluation.grading import Grade, Grader
from gpo.evaluation.metrics.scorer import can_read, explanation, reading
from gpo.evaluation.program import Program
from gpo.evaluation.program_calls import CallRecord, Response
from gpo.models.protocol import NO_USAGE, ChatModel, Completion, Message, Sampling, Usage, given_up
from gpo.prompt import Prompt
from gpo.runtime.concurrency import gather
from gpo.score import NO_FLAWS, Flaws, Score
from gpo.text import one_line
from gpo.trajectory import Spending

_MAX_REASON = 1000
"""Characters of a reason; a longer one loses its middle."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The task model's answer to one example, and its grade.

    Attributes:
        text: the answer, followed by that of the second round if there is one. Empty if the call failed.
        value: the grade in [0, 1]; ``None`` if unscored.
        spending: what answer and grade cost.
        problem: why there is no grade; empty otherwise.
        is_refused: whether the endpoint refused the request, rather than being unavailable.
        flaws: what the answer lacks.
        reason: why the grade is below 1, on one line; empty if it is not, or if nobody can say.
        seconds: until the answer was there, the wait for the limits included; the judge's time does not count.
        calls: the model calls of a program, if the evaluator keeps them.
        read: what the scorer read from the answer, such as a label; empty if nothing, or for other kinds of answers.
    """

    text: str
    value: float | None
    spending: Spending
    problem: str = ""
    is_refused: bool = False
    flaws: Flaws = NO_FLAWS
    reason: str = ""
    seconds: float = field(default=0.0, compare=False)
    calls: tuple[CallRecord, ...] = ()
    read: str = ""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A score, and what it cost: the ``usage`` of the task model, and that of the ``judge`` if a model judges.

    ``answers`` are those that the score rests on, in order, if the evaluator keeps them; else empty.
    """

    score: Score
    usage: Usage
    judge: Usage = NO_USAGE
    answers: tuple[Answered, ...] = ()

    @property
    def spending(self) -> Spending:
        """The cost by role."""
        return Spending(task=self.usage, judge=self.judge)


class Evaluator(Protocol):
    """Scores prompts on one task."""

    async def evaluate(
        self, prompts: Sequence[Prompt], split: Split, indices: Sequence[int] | None = None
    ) -> Sequence[Evaluation]:
        """One evaluation per prompt, in order, on every example of the split.

        Args:
            indices: score only these examples, in this order; positions in the split, from 0. Then more examples may
                stay unscored, as long as the whole split can still be within ``max_unscored``.

        Raises:
            ValueError: an index is out of range.
            KeyError: a prompt does not fit the task; see ``Task.prompt_problem``.
            PromptUnscored: too many examples stayed unscored.
            EvaluationError: a user's function failed.
            ModelRefused: the endpoint refuses every call (key, model name).
        """
        ...


class Answerer(Protocol):
    """Shows the task model's answers on one task, with the reasons of their grades."""

    async def answer(self, prompt: Prompt, split: Split, indices: Sequence[int]) -> Sequence[Answered]:
        """One answer per index, in order; those of failed calls are unscored.

        Args:
            indices: positions of examples in the split, from 0.

        Raises:
            ValueError: an index is out of range.
            EvaluationError: a user's function failed.
            ModelRefused: the endpoint refuses every call (key, model name).
        """
        ...


@dataclass(frozen=True, slots=True)
class LocalEvaluator:
    """An ``Evaluator`` and ``Answerer`` that calls the task model from this process.

    It starts all calls at once; the model limits its own concurrency.

    Args:
        grader: judges the answers.
        max_unscored: share of the examples in [0, 1] that may stay unscored because their calls failed. At least one
            must be scored, since a score without values has no mean.
        program: answers in place of a single call of the task model.
        keeps_answers: whether evaluations contain the answers.
        keeps_calls: whether these contain the model calls of a program.
    """

    task: Task
    model: ChatModel
    sampling: Sampling
    grader: Grader
    max_unscored: float = 0.0
    program: Program | None = None
    keeps_answers: bool = False
    keeps_calls: bool = False

    async def evaluate(
        self, prompts: Sequence[Prompt], split: Split, indices: Sequence[int] | None = None
    ) -> Sequence[Evaluation]:
        examples = self.task.examples[split] if indices is None else self._chosen(split, indices)
        # Prompt by prompt, so that a server that caches prefixes sees equal beginnings one after the other.
        # The inner list is needed: a generator would run later, and see only the last prompt.
        rows = await gather(
            gather([self._answered(prompt, example, explains=self.keeps_answers) for example in examples])
            for prompt in prompts
        )
        return [self._evaluation(split, row, is_whole=indices is None) for row in rows]

    async def answer(self, prompt: Prompt, split: Split, indices: Sequence[int]) -> Sequence[Answered]:
        return await gather(self._answered(prompt, example, explains=True) for example in self._chosen(split, indices))

    def _chosen(self, split: Split, indices: Sequence[int]) -> list[Example]:
        examples = self.task.examples[split]
        for index in indices:
            if not 0 <= index < len(examples):
                raise ValueError(
                    f"task {self.task.name} has no {split} example {index}; its {len(examples)} examples are numbered "
                    "from 0"
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
        kept = tuple(answers) if self.keeps_answers else ()
        return Evaluation(score, spending.task, spending.judge, kept)

    async def _answered(self, prompt: Prompt, example: Example, *, explains: bool = False) -> Answered:
        if self.program is not None:
            return await self._answered_by(self.program, prompt, example, explains=explains)
        began = time.monotonic()
        messages = self.task.answer_format.messages(prompt, example)
        question = second_question(self.task, example)
        usage, text = Usage(), ""
        try:
            reply = await self.model.complete(messages, self.sampling)
            usage, text = usage + reply.usage, reply.text
            if question is not None and reply.answer.strip():
                reply = await self.model.complete([*messages, *follow_up(reply, question)], self.sampling)
                usage, text = usage + reply.usage, f"{text}\n\nAsked for the final answer alone: {reply.text}"
        except ModelRefused as refusal:
            if refusal.reason.concerns_every_call:
                raise
            spending, seconds = Spending(task=usage + given_up(refusal)), time.monotonic() - began
            return Answered(text, None, spending, str(refusal), is_refused=True, seconds=seconds)
        except ModelUnavailable as failure:
            spending, seconds = Spending(task=usage + given_up(failure)), time.monotonic() - began
            return Answered(text, None, spending, str(failure), seconds=seconds)
        seconds = time.monotonic() - began
        return await self._judged(text, reply, usage, example, seconds, explains=explains)

    async def _answered_by(self, program: Program, prompt: Prompt, example: Example, *, explains: bool) -> Answered:
        began = time.monotonic()
        response = await program.respond(prompt, example)
        seconds = time.monotonic() - began
        answered = await self._graded(response, example, explains=explains)
        calls = tuple(call.record() for call in response.calls) if self.keeps_calls else ()
        return replace(answered, seconds=seconds, calls=calls)

    async def _graded(self, response: Response, example: Example, *, explains: bool) -> Answered:
        spending = Spending(task=response.usage)
        if response.problem:
            return Answered(response.text, None, spending, response.problem, response.is_refused)
        if response.answer is None:
            reason = one_line(response.fault, _MAX_REASON)
            return Answered(response.text, 0.0, spending, flaws=Flaws(unreadable=1), reason=reason)
        if response.score is not None:
            reason = one_line(response.reason, _MAX_REASON) if response.score < 1 else ""
            return Answered(response.text, response.score, spending, reason=reason)
        reply = Completion(response.answer, response.usage)
        return await self._judged(response.text, reply, response.usage, example, 0.0, explains=explains)

    async def _judged(
        self, text: str, reply: Completion, usage: Usage, example: Example, seconds: float, *, explains: bool
    ) -> Answered:
        grade = await self.grader.grade(reply.answer, example)
        return Answered(
            text,
            grade.value,
            Spending(task=usage, judge=grade.usage),
            grade.problem,
            grade.is_refused,
            self._flaws(reply, example, grade.value),
            self._reason(reply, example, grade) if explains else "",
            seconds,
            read=reading(self.task.scorer, reply.answer, example) if explains else "",
        )

    def _reason(self, reply: Completion, example: Example, grade: Grade) -> str:
        if grade.value is None or grade.value >= 1:
            return ""
        cut = "the reply was cut off, since it is too long" if reply.truncated else ""
        if reply.answer.strip():
            known = grade.reason or explanation(self.task.scorer, reply.answer, example)
        else:
            known = "the answer is empty"
        return one_line("; ".join(filter(None, (cut, known))), _MAX_REASON)

    def _flaws(self, reply: Completion, example: Example, value: float | None) -> Flaws:
        is_empty = not reply.answer.strip()
        if reply.truncated and (is_empty or value == 0):
            return Flaws(cut=1)
        if is_empty:
            return Flaws(empty=1)
        return NO_FLAWS if can_read(self.task.scorer, reply.answer, example) else Flaws(unreadable=1)


def second_question(task: Task, example: Example) -> str | None:
    """The question of the second round; ``None`` without one."""
    return task.scorer.follow_up(example) if task.answer_format.rounds == 2 else None


def follow_up(reply: Completion, question: str) -> list[Message]:
    """The turns that a second round adds to the conversation."""
    return [{"role": "assistant", "content": reply.answer}, {"role": "user", "content": question}]
