from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from gpo.data.example import Example
from gpo.data.task import Split
from gpo.errors import ModelRefused, ModelUnavailable, RefusalReason
from gpo.evaluation.evaluator import Answered
from gpo.models.protocol import Sampling, Usage
from gpo.prompt import Prompt
from gpo.strategies.reflection import FailureReflector, Feedback
from gpo.testing.fakes import FakeModel, Reply
from gpo.testing.samples import candidate
from gpo.trajectory import Failure, Spending

EXAMPLES = [Example(f"input {number}.", (f"target {number}.",)) for number in range(6)]
CURRENT = candidate("Think.", 0.5, 0.25)


@dataclass
class Answers:
    """An answerer that knows the value of each answer."""

    values: Sequence[float | None]
    asked: list[tuple[Prompt, Split, tuple[int, ...]]] = field(default_factory=list)

    async def answer(self, prompt: Prompt, split: Split, indices: Sequence[int]) -> Sequence[Answered]:
        self.asked.append((prompt, split, tuple(indices)))
        cost = Spending(task=Usage(requests=1))
        return [Answered(f"answer {index}.", self.values[index], cost, reason=f"reason {index}.") for index in indices]


def reflector(model: FakeModel, *values: float | None, num_failures: int = 2) -> FailureReflector:
    return FailureReflector(
        model=model, sampling=Sampling(temperature=1.0), answerer=Answers(values), examples=EXAMPLES,
        num_failures=num_failures,
    )  # fmt: skip


def says(*replies: Reply) -> FakeModel:
    return FakeModel.scripted(replies)


async def test_the_worst_answers_of_the_batch_are_shown() -> None:
    model = says(" It is too short.\n")
    made = reflector(model, 1.0, 0.9, 0.0, 0.5, 0.0, None)
    reflection = await made.reflect(CURRENT, [1, 3, 5, 0, 4], seed=3)

    assert reflection.text == "It is too short."
    assert made.answerer.asked == [(CURRENT.prompt, Split.TRAIN, (1, 3, 5, 0, 4))]
    (((message,), sampling),) = model.calls
    assert sampling == Sampling(temperature=1.0, seed=3)
    text = message["content"]
    assert "Prompt: Think.\nScore: 37.5" in text
    assert (
        "Input: input 4.\nCorrect answer: target 4.\nThe model's answer: answer 4.\nWhy it is wrong: reason 4." in text
    )
    assert [failure.reason for failure in reflection.failures] == ["reason 4.", "reason 3."]
    assert text.index("input 4.") < text.index("input 3.")
    assert not any(f"input {number}." in text for number in (0, 1, 2, 5))  # right, less bad, not of the batch, unscored


async def test_both_models_are_accounted_for() -> None:
    reflection = await reflector(says("It is too short."), 0.0, 0.0, 1.0).reflect(CURRENT, [0, 1, 2], seed=0)
    assert reflection.spending.task.requests == 3
    assert reflection.spending.optimizer.requests == 1


async def test_without_a_failure_nothing_is_asked() -> None:
    model = says()
    reflection = await reflector(model, 1.0, None).reflect(CURRENT, [0, 1], seed=0)
    assert reflection.text is None
    assert reflection.spending == Spending(task=Usage(requests=2))


@pytest.mark.parametrize("text", ["", " \n"])
async def test_an_empty_reply_is_not_a_reflection(text: str) -> None:
    assert (await reflector(says(text), 0.0).reflect(CURRENT, [0], seed=0)).text is None


async def test_one_refused_reflection_does_not_end_the_search() -> None:
    refused = ModelRefused("content filter", RefusalReason.REQUEST, "m", "u").costing(Usage(completion_tokens=9))
    reflection = await reflector(says(refused), 0.0).reflect(CURRENT, [0], seed=0)
    assert (reflection.text, reflection.spending.optimizer.failures) == (None, 1)
    assert reflection.spending.optimizer.completion_tokens == 9


@pytest.mark.parametrize(
    "failure", [ModelUnavailable("gone", 5, None), ModelRefused("no", RefusalReason.KEY, "m", "u")]
)
async def test_an_unusable_model_ends_the_search(failure: Exception) -> None:
    with pytest.raises(type(failure)):
        await reflector(says(failure), 0.0).reflect(CURRENT, [0], seed=0)


async def test_model_texts_cannot_act_as_instructions() -> None:
    model = says("It says <START> and half \ud83d a character\x1b[31m.")
    reflection = await reflector(model, 0.0).reflect(candidate("Think. <START>x<END>"), [0], seed=0)
    assert "<START>" not in model.calls[0][0][0]["content"]
    assert reflection.text == "It says <START> and half ? a character[31m."


async def test_feedback_keeps_the_worst_answers_and_asks_no_optimizer_model() -> None:
    answers = Answers([1.0, 0.9, 0.0, 0.5, 0.0, None])
    feedback = Feedback(answerer=answers, examples=EXAMPLES, num_failures=2)
    reflection = await feedback.reflect(CURRENT, [1, 3, 5, 0, 4], seed=3)
    assert reflection.text is None
    assert reflection.spending == Spending(task=Usage(requests=5))
    assert reflection.failures == (
        Failure("input 4.", "target 4.", "answer 4.", "reason 4."),
        Failure("input 3.", "target 3.", "answer 3.", "reason 3."),
    )
    assert answers.asked == [(CURRENT.prompt, Split.TRAIN, (1, 3, 5, 0, 4))]


async def test_failures_with_different_reasons_are_preferred() -> None:
    class Alike(Answers):
        async def answer(self, prompt: Prompt, split: Split, indices: Sequence[int]) -> Sequence[Answered]:
            answers = await super().answer(prompt, split, indices)
            return [replace(one, reason="cut" if index < 3 else "rude") for index, one in enumerate(answers)]

    feedback = Feedback(answerer=Alike([0.0, 0.0, 0.0, 0.0, 0.5]), examples=EXAMPLES, num_failures=4)
    reflection = await feedback.reflect(CURRENT, [0, 1, 2, 3, 4], seed=3)
    assert [(failure.input, failure.reason) for failure in reflection.failures] == [
        ("input 0.", "cut"), ("input 3.", "rude"), ("input 1.", "cut"), ("input 2.", "cut"),
    ]  # fmt: skip
