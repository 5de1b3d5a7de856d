from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from gpo.data.example import Example
from gpo.data.task import Split, Task
from gpo.errors import BudgetExhausted, EvaluationError, GPOError, ModelRefused, ModelUnavailable, RefusalReason
from gpo.evaluation.answer_format import AnswerFormat
from gpo.evaluation.evaluator import Answered, LocalEvaluator
from gpo.evaluation.grading import ModelGrader, RuleGrader
from gpo.evaluation.metrics import ExactScorer, RougeScorer, Rubric
from gpo.models.protocol import Completion, Message, Sampling, Usage
from gpo.prompt import Prompt
from gpo.testing.fakes import FakeModel, Reply
from gpo.trajectory import Spending

EXAMPLES = tuple(Example(f"What is {number} + 0?", (str(number),)) for number in range(10))
TASK = Task("sums", Prompt("Add."), {Split.VAL: EXAMPLES, Split.TEST: EXAMPLES[:2]}, ExactScorer())
SAMPLING = Sampling(temperature=0)
GOOD, BAD = Prompt("Add."), Prompt("Guess.")


def solve(messages: Sequence[Message], sampling: Sampling) -> Reply:
    """Answers right if the prompt asks for it; longer questions take longer."""
    content = messages[0]["content"]
    return content.split()[2] if GOOD.text in content else "no idea"


def failing(error: Exception, *numbers: int) -> Callable[[Sequence[Message], Sampling], Reply]:
    def reply(messages: Sequence[Message], sampling: Sampling) -> Reply:
        return error if int(messages[0]["content"].split()[2]) in numbers else solve(messages, sampling)

    return reply


def evaluator(
    reply: Callable[[Sequence[Message], Sampling], Reply] | FakeModel, task: Task = TASK, **changes: object
) -> LocalEvaluator:
    model = reply if isinstance(reply, FakeModel) else FakeModel(reply)
    return replace(LocalEvaluator(task, model, SAMPLING, RuleGrader(task.scorer)), **changes)


async def test_one_evaluation_per_prompt_in_order() -> None:
    evaluations = await evaluator(solve).evaluate([BAD, GOOD, BAD], Split.VAL)
    assert [evaluation.score.mean for evaluation in evaluations] == [0.0, 1.0, 0.0]
    assert [evaluation.usage.requests for evaluation in evaluations] == [10, 10, 10]


async def test_values_are_in_the_order_of_the_examples_however_long_each_takes() -> None:
    class Slow(FakeModel):
        async def complete(self, messages, sampling):
            await asyncio.sleep(0.01 - int(messages[0]["content"].split()[2]) / 1000)
            return await super().complete(messages, sampling)

    def odd_ones_right(messages: Sequence[Message], sampling: Sampling) -> Reply:
        number = int(messages[0]["content"].split()[2])
        return str(number) if number % 2 else "no idea"

    (evaluation,) = await evaluator(Slow(odd_ones_right)).evaluate([GOOD], Split.VAL)
    assert evaluation.score.values_E == (0.0, 1.0) * 5


async def test_two_rounds_judge_the_second_answer() -> None:
    def reply(messages: Sequence[Message], sampling: Sampling) -> Reply:
        return "first answer" if len(messages) == 1 else messages[0]["content"].split()[2]

    model = FakeModel(reply)
    task = replace(TASK, answer_format=AnswerFormat(rounds=2))
    (evaluation,) = await evaluator(model, task).evaluate([GOOD], Split.TEST)
    assert evaluation.score.values_E == (1.0, 1.0)
    assert evaluation.usage.requests == len(model.calls) == 4
    assert all(sampling == SAMPLING for _, sampling in model.calls)
    assert model.calls[-1][0] == (
        {"role": "user", "content": "What is 1 + 0?\nAdd."},
        {"role": "assistant", "content": "first answer"},
        {"role": "user", "content": "Now give only the final answer and nothing else."},
    )


async def test_a_scorer_without_a_follow_up_is_asked_once() -> None:
    task = replace(TASK, answer_format=AnswerFormat(rounds=2), scorer=RougeScorer())
    (evaluation,) = await evaluator(solve, task).evaluate([GOOD], Split.TEST)
    assert evaluation.usage.requests == 2


@pytest.mark.parametrize(
    ("error", "usage"),
    [
        (ModelUnavailable("busy", 5), Usage(requests=7, failures=3, retries=15)),
        (ModelRefused("too long", RefusalReason.REQUEST), Usage(requests=7, failures=3)),
        (
            ModelRefused("filtered", RefusalReason.FILTER, billed=Usage(cost_usd=0.25)),
            Usage(requests=7, failures=3, cost_usd=0.75),
        ),
    ],
)
async def test_failed_examples_stay_unscored_as_far_as_tolerated(error: GPOError, usage: Usage) -> None:
    reply = failing(error, 2, 5, 6)
    (evaluation,) = await evaluator(reply, max_unscored=0.3).evaluate([GOOD], Split.VAL)
    assert evaluation.score.values_E == tuple(None if number in {2, 5, 6} else 1.0 for number in range(10))
    assert evaluation.score.mean == 1.0
    assert replace(evaluation.usage, prompt_tokens=0, completion_tokens=0) == usage
    with pytest.raises(EvaluationError, match=rf"3 of 10 val examples of task sums .* share of 0\.29.*: {error}"):
        await evaluator(reply, max_unscored=0.29).evaluate([GOOD], Split.VAL)


async def test_the_tolerated_share_is_exact() -> None:
    # 0.29 · 100 is 28.999…: a share is compared as a share.
    examples = tuple(Example(f"What is {number} + 0?", (str(number),)) for number in range(100))
    task = replace(TASK, examples={Split.VAL: examples})
    reply = failing(ModelUnavailable("busy"), *range(29))
    (evaluation,) = await evaluator(reply, task=task, max_unscored=0.29).evaluate([GOOD], Split.VAL)
    assert evaluation.score.num_unscored == 29


async def test_a_prompt_without_any_score_is_an_error_at_any_tolerance() -> None:
    with pytest.raises(EvaluationError, match="10 of 10"):
        await evaluator(failing(ModelUnavailable("busy"), *range(10)), max_unscored=1.0).evaluate([GOOD], Split.VAL)


async def test_a_failed_second_round_still_counts_the_first() -> None:
    def reply(messages: Sequence[Message], sampling: Sampling) -> Reply:
        content = messages[0]["content"]
        return ModelUnavailable("busy", 1) if len(messages) > 1 and " 0 + " in content else content.split()[2]

    task = replace(TASK, answer_format=AnswerFormat(rounds=2))
    (evaluation,) = await evaluator(reply, task=task, max_unscored=0.5).evaluate([GOOD], Split.TEST)
    assert evaluation.score.values_E == (None, 1.0)
    assert (evaluation.usage.requests, evaluation.usage.failures, evaluation.usage.retries) == (3, 1, 1)


@pytest.mark.parametrize(
    "error",
    [
        ModelRefused("HTTP 401", RefusalReason.KEY),
        ModelRefused("HTTP 404", RefusalReason.MODEL),
        BudgetExhausted("no calls left"),
        ZeroDivisionError("a fault of our own"),
    ],
    ids=repr,
)
async def test_an_error_that_ends_the_run_is_raised_unchanged(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        await evaluator(failing(error, *range(3, 10)), max_unscored=1.0).evaluate([GOOD, BAD], Split.VAL)
    assert caught.value is error


async def test_answers_come_with_their_verdicts_in_the_order_asked() -> None:
    model = FakeModel(lambda messages, sampling: messages[0]["content"].split()[2].replace("7", "seven"))
    answers = await evaluator(model).answer(GOOD, Split.VAL, [7, 2])
    asked = Usage(requests=1, prompt_tokens=6, completion_tokens=1)
    reason = "the answer does not equal the right one, word for word"
    assert answers == [Answered("seven", 0.0, Spending(asked), reason=reason), Answered("2", 1.0, Spending(asked))]
    assert len(model.calls) == 2


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "the answer is empty"),
        (Completion("", Usage(), truncated=True), "the reply was cut off, since it is too long; the answer is empty"),
        (Completion("3", Usage(), truncated=True), "the reply was cut off, since it is too long; the answer does not"),
        ("It is 1.", "the right answer has other text around it"),
        ("1", ""),
        (Completion("1", Usage(), truncated=True), ""),
        (ModelUnavailable("busy"), ""),
    ],
)
async def test_shown_answers_have_a_reason(reply: Reply, reason: str) -> None:
    (answer,) = await evaluator(lambda messages, sampling: reply).answer(GOOD, Split.VAL, [1])
    assert answer.reason.startswith(reason)
    assert bool(answer.reason) == bool(reason)


async def test_reasons_are_found_only_for_answers_that_are_shown() -> None:
    class Explaining(ExactScorer):
        explained = 0

        def explain(self, answer: str, example: Example) -> str:
            Explaining.explained += 1
            return "It says\n\x1b[31mno\ud83d " + "idea " * 500

    task = replace(TASK, scorer=Explaining())
    await evaluator(solve, task).evaluate([BAD], Split.VAL)
    assert Explaining.explained == 0
    (bad,) = await evaluator(solve, task).answer(BAD, Split.VAL, [1])
    (good,) = await evaluator(solve, task).answer(GOOD, Split.VAL, [1])
    assert Explaining.explained == 1
    assert bad.reason.startswith("It says [31mno? idea idea")
    assert (len(bad.reason), good.reason) == (1000, "")


async def test_the_reason_of_a_metric_comes_with_its_only_call() -> None:
    class Reasoning(ExactScorer):
        def score_with_reason(self, answer: str, example: Example) -> tuple[float, str]:
            return self.score(answer, example), f"expected {example.target}"

        def explain(self, answer: str, example: Example) -> str:
            raise AssertionError("the reason is known")

    (answer,) = await evaluator(solve, replace(TASK, scorer=Reasoning())).answer(BAD, Split.VAL, [1])
    assert answer.reason == "expected 1"


async def test_the_judge_s_reason_is_kept() -> None:
    (answer,) = await judged(lambda messages, sampling: "It is\nrude.\n\n**Verdict: 3**").answer(GOOD, Split.VAL, [1])
    assert (answer.value, answer.reason) == (0.75, "It is rude.")
    (answer,) = await judged(lambda messages, sampling: "Fine.\nVerdict: 4").answer(GOOD, Split.VAL, [1])
    assert (answer.value, answer.reason) == (1.0, "")


async def test_an_answer_of_two_rounds_shows_both() -> None:
    def reply(messages: Sequence[Message], sampling: Sampling) -> Reply:
        return "It is one." if len(messages) == 1 else "one"

    task = replace(TASK, answer_format=AnswerFormat(rounds=2))
    (answer,) = await evaluator(reply, task).answer(GOOD, Split.VAL, [1])
    assert answer.text == "It is one.\n\nAsked for the final answer alone: one"
    assert (answer.value, answer.spending.task.requests) == (0.0, 2)


async def test_a_failed_answer_is_unscored_and_has_its_reason() -> None:
    good, bad = await evaluator(failing(ModelUnavailable("busy", 2), 3)).answer(GOOD, Split.VAL, [2, 3])
    assert good.value == 1.0
    assert bad == Answered("", None, Spending(Usage(failures=1, retries=2)), "busy")


@pytest.mark.parametrize("index", [-1, 2])
async def test_an_unknown_example_is_refused_before_any_call(index: int) -> None:
    model = FakeModel(solve)
    with pytest.raises(ValueError, match=rf"task sums has no test example {index}; its 2 examples"):
        await evaluator(model).answer(GOOD, Split.TEST, [0, index])
    assert model.calls == []


JUDGED = replace(TASK, scorer=Rubric("The number is right.", scale=4), answer_format=AnswerFormat(rounds=2))


def judged(verdict: Callable[[Sequence[Message], Sampling], Reply], **changes: object) -> LocalEvaluator:
    grader = ModelGrader(Rubric("The number is right.", scale=4), FakeModel(verdict), Sampling(temperature=0))
    return replace(LocalEvaluator(JUDGED, FakeModel(solve), SAMPLING, grader), **changes)


async def test_a_model_judges_each_answer_once_and_its_cost_is_separate() -> None:
    (evaluation,) = await judged(lambda messages, sampling: "Fine.\nVerdict: 3").evaluate([GOOD], Split.VAL)
    assert evaluation.score.values_E == (0.75,) * 10
    assert (evaluation.usage.requests, evaluation.judge.requests) == (10, 10)
    assert evaluation.spending == Spending(task=evaluation.usage, judge=evaluation.judge)


async def test_answers_without_a_verdict_stay_unscored_as_far_as_tolerated() -> None:
    def verdict(messages: Sequence[Message], sampling: Sampling) -> Reply:
        content = messages[0]["content"]
        return ModelUnavailable("busy", 1) if " 3 + " in content else "Hm." if " 4 + " in content else "Verdict: 4"

    (evaluation,) = await judged(verdict, max_unscored=0.2).evaluate([GOOD], Split.VAL)
    assert evaluation.score.values_E == tuple(None if number in {3, 4} else 1.0 for number in range(10))
    judge = evaluation.judge
    assert (judge.requests, judge.failures, judge.retries) == (9, 1, 1)
    assert evaluation.usage.requests == 10
    with pytest.raises(EvaluationError, match=r"2 of 10 .* the first failure: the judge: busy"):
        await judged(verdict, max_unscored=0.1).evaluate([GOOD], Split.VAL)
    (answer,) = await judged(verdict).answer(GOOD, Split.VAL, [4])
    assert (answer.text, answer.value) == ("4", None)
    assert "no line 'Verdict: N'" in answer.problem


async def test_a_judge_that_refuses_every_call_ends_the_run() -> None:
    refusal = ModelRefused("HTTP 401", RefusalReason.KEY)
    with pytest.raises(ModelRefused) as caught:
        await judged(lambda messages, sampling: refusal, max_unscored=1.0).evaluate([GOOD], Split.VAL)
    assert caught.value is refusal
    cost = Usage(completion_tokens=9)
    filtered = judged(lambda messages, sampling: ModelRefused("filtered", RefusalReason.FILTER, billed=cost))
    (answer,) = await filtered.answer(GOOD, Split.VAL, [0])
    assert (answer.value, answer.problem) == (None, "the judge: filtered")
    assert answer.spending.judge == cost + Usage(failures=1)


async def test_only_the_named_examples_are_asked_in_their_order() -> None:
    def odd_ones_right(messages: Sequence[Message], sampling: Sampling) -> Reply:
        number = int(messages[0]["content"].split()[2])
        return str(number) if number % 2 else "no idea"

    model = FakeModel(odd_ones_right)
    (evaluation,) = await evaluator(model).evaluate([GOOD], Split.VAL, [7, 2, 3])
    assert evaluation.score.values_E == (1.0, 0.0, 1.0)
    assert evaluation.usage.requests == len(model.calls) == 3
    with pytest.raises(ValueError, match="no val example 10"):
        await evaluator(model).evaluate([GOOD], Split.VAL, [10])


async def test_a_part_may_stay_unscored_as_far_as_the_whole_can_be_within_bounds() -> None:
    reply = failing(ModelUnavailable("busy"), 2, 5, 6)
    (evaluation,) = await evaluator(reply, max_unscored=0.3).evaluate([GOOD], Split.VAL, [2, 5, 6])
    assert evaluation.score.values_E == (None, None, None)
    with pytest.raises(EvaluationError, match="3 of 10 val examples"):
        await evaluator(reply, max_unscored=0.2).evaluate([GOOD], Split.VAL, [2, 5, 6])
