from __future__ import annotations

import pytest

from gpo.data.task import Split
from gpo.models.protocol import Completion, Sampling, Usage
from gpo.prompt import Prompt
from gpo.testing.fakes import FakeEvaluator, FakeModel, WordEmbedder


async def test_a_scripted_model_follows_its_script_and_no_further() -> None:
    cut = Completion("half", Usage(requests=1), truncated=True)
    model = FakeModel.scripted(["two words", cut, KeyError("third")])
    question = [{"role": "user", "content": "say it now"}]
    assert await model.complete(question, Sampling()) == Completion(
        "two words", Usage(requests=1, prompt_tokens=3, completion_tokens=2)
    )
    assert await model.complete(question, Sampling()) is cut
    with pytest.raises(KeyError, match="third"):
        await model.complete(question, Sampling())
    with pytest.raises(AssertionError, match="no more replies"):
        await model.complete(question, Sampling(seed=7))
    assert model.calls == [((question[0],), Sampling())] * 3 + [((question[0],), Sampling(seed=7))]


async def test_an_evaluator_answers_for_the_examples_asked_for() -> None:
    evaluator = FakeEvaluator(lambda prompt: [1.0, None, 0.0])
    answers = await evaluator.answer(Prompt("one"), Split.TRAIN, [2, 1])
    assert [(answer.text, answer.value) for answer in answers] == [("answer 2 to: one", 0.0), ("", None)]
    assert evaluator.answered == [(Prompt("one"), Split.TRAIN, (2, 1))]
    with pytest.raises(ValueError, match="no train example 3"):
        await evaluator.answer(Prompt("one"), Split.TRAIN, [3])


async def test_an_embedder_counts_words() -> None:
    one, other, again, nothing = await WordEmbedder(8).embed(["step by step", "STEP by", "by step step", ""])
    assert one == again != other
    assert (sum(one), sum(other), nothing) == (3, 2, [0.0] * 8)
    assert await WordEmbedder().embed([]) == []
