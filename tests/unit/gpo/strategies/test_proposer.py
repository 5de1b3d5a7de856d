from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from gpo.data.example import Example
from gpo.errors import BudgetExhausted, ModelRefused, ModelUnavailable, RefusalReason
from gpo.evaluation.answer_format import Position
from gpo.models.protocol import Completion, Message, Sampling, Usage
from gpo.prompt import Prompt
from gpo.strategies.meta_prompt import FullMetaPrompt
from gpo.strategies.proposer import Proposals, SamplingProposer
from gpo.strategies.rules import Rules
from gpo.testing.fakes import FakeModel, Reply
from gpo.testing.samples import candidate
from gpo.trajectory import Direction

CURRENT = candidate("Think.", 0.5)
EXAMPLES = [Example(f"input {number}", (f"answer {number}",)) for number in range(20)]
SAMPLING = Sampling(temperature=1.0, max_tokens=512, stop=("###",))


def seeded(messages: Sequence[Message], sampling: Sampling) -> Reply:
    return f"<START>prompt {sampling.seed}<END>"


def failing(failures: dict[int, Reply]) -> FakeModel:
    """A model whose n-th call, from 0, gives this in place of a prompt."""
    calls = iter(range(100))

    def reply(messages: Sequence[Message], sampling: Sampling) -> Reply:
        number = next(calls)
        return failures.get(number, f"<START>prompt {number}<END>")

    return FakeModel(reply)


def proposer(model: FakeModel, **changes: object) -> SamplingProposer:
    made = SamplingProposer(
        model=model,
        sampling=SAMPLING,
        meta_prompt=FullMetaPrompt(),
        position=Position.QUESTION_END,
    )
    return replace(made, **changes)


async def propose(made: SamplingProposer, n: int = 4, seed: int = 0) -> Proposals:
    direction = Direction((candidate("Reason.", 0.3),))
    return await made.propose(CURRENT, direction, step_size=20, exemplars=EXAMPLES[:3], n=n, seed=seed)


async def test_each_prompt_is_one_request_with_a_different_seed() -> None:
    model = FakeModel(seeded)
    proposals = await propose(proposer(model), n=8)
    seeds = [sampling.seed for _, sampling in model.calls]
    assert len(set(seeds)) == 8
    assert all(seed is not None and 0 <= seed < 2**31 for seed in seeds)
    assert proposals.prompts == tuple(Prompt(f"prompt {seed}") for seed in seeds)
    assert proposals.usage.requests == 8
    assert all(replace(sampling, seed=None) == SAMPLING for _, sampling in model.calls)


async def test_all_requests_show_the_same_conversation() -> None:
    model = FakeModel(seeded)
    await propose(proposer(model))
    assert all(messages == model.calls[0][0] for messages, _ in model.calls)
    content = model.calls[0][0][0]["content"]
    assert all(part in content for part in ("Prompt: Think.\nScore: 50.0", "Prompt: Reason.", "at most 20 words"))


async def test_the_exemplars_are_shown() -> None:
    model = FakeModel(seeded)
    await propose(proposer(model))
    content = model.calls[0][0][0]["content"].replace("\n", " \n")
    assert [example.input for example in EXAMPLES if f"{example.input} " in content] == [
        "input 0",
        "input 1",
        "input 2",
    ]


async def test_malformed_replies_are_dropped_and_counted() -> None:
    cut = Completion("<START>half a pro", Usage(requests=1, completion_tokens=512), truncated=True)
    proposals = await propose(proposer(failing({1: "", 2: cut})))
    assert [prompt.text for prompt in proposals.prompts] == ["prompt 0", "prompt 3"]
    assert (proposals.num_malformed, proposals.usage.requests, proposals.usage.failures) == (2, 4, 0)


@pytest.mark.parametrize(
    ("failure", "retries"), [(ModelUnavailable("busy", 5), 5), (ModelRefused("filtered", RefusalReason.REQUEST), 0)]
)
async def test_a_lost_sample_is_a_smaller_step(failure: Exception, retries: int) -> None:
    proposals = await propose(proposer(failing({2: failure})))
    assert [prompt.text for prompt in proposals.prompts] == ["prompt 0", "prompt 1", "prompt 3"]
    assert proposals.num_malformed == 0
    assert (proposals.usage.requests, proposals.usage.failures, proposals.usage.retries) == (3, 1, retries)


async def test_the_tokens_of_a_filtered_reply_are_counted() -> None:
    filtered = ModelRefused("filtered", RefusalReason.REQUEST).costing(Usage(completion_tokens=7, cost_usd=0.5))
    usage = (await propose(proposer(failing({2: filtered})))).usage
    without = (await propose(proposer(failing({2: ModelRefused("filtered", RefusalReason.REQUEST)})))).usage
    assert usage == without + Usage(completion_tokens=7, cost_usd=0.5)


async def test_a_step_without_any_sample_is_an_error() -> None:
    with pytest.raises(ModelUnavailable, match="busy"):
        await propose(proposer(failing(dict.fromkeys(range(4), ModelUnavailable("busy")))))


@pytest.mark.parametrize(
    "failure",
    [
        ModelRefused("HTTP 401", RefusalReason.KEY),
        ModelRefused("HTTP 404", RefusalReason.MODEL),
        BudgetExhausted("no calls left"),
        ZeroDivisionError("a fault of our own"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("others", [{}, {0: ModelUnavailable("busy")}], ids=["good", "busy"])
async def test_an_error_that_concerns_every_call_is_raised(failure: Exception, others: dict[int, Reply]) -> None:
    with pytest.raises(type(failure)) as caught:
        await propose(proposer(failing({**others, 2: failure})))
    assert caught.value is failure


@pytest.mark.parametrize(
    ("lengths", "max_samples", "taken", "rejected", "malformed", "bought"),
    [
        ([9], 1, 9, 0, 0, 1),  # advice only
        ([5], 4, 5, 0, 0, 1),  # at the bound
        ([9, 6, 4], 4, 4, 2, 0, 3),
        ([9, 6], 2, None, 2, 0, 2),  # given up
        ([9, 0], 4, None, 1, 1, 2),  # an empty reply is none that could be shortened
    ],
)
async def test_an_enforced_step_size_samples_again(
    lengths: list[int], max_samples: int, taken: int | None, rejected: int, malformed: int, bought: int
) -> None:
    model = FakeModel.scripted(f"<START>{'word ' * length}<END>" for length in lengths)
    made = proposer(model, max_samples=max_samples)
    proposals = await made.propose(candidate("word", 0.5), Direction(), step_size=4, exemplars=[], n=1, seed=0)
    assert [len(prompt.words) for prompt in proposals.prompts] == ([] if taken is None else [taken])
    assert (proposals.num_rejected, proposals.num_malformed) == (rejected, malformed)
    assert proposals.usage.requests == len(model.calls) == bought
    seeds = [sampling.seed for _, sampling in model.calls]
    assert len(set(seeds)) == len(seeds)


async def test_each_prompt_is_reported_when_it_arrives_and_the_result_is_in_sample_order() -> None:
    reported: list[str] = []

    class Slow(FakeModel):
        async def complete(self, messages, sampling):
            completion = await super().complete(messages, sampling)
            for _ in range(20 - 2 * len(self.calls) - 3 * self.calls.index((tuple(messages), sampling))):
                await asyncio.sleep(0)
            return completion

    made = proposer(Slow(seeded))
    direction = Direction()
    proposals = await made.propose(
        CURRENT,
        direction,
        step_size=20,
        exemplars=[],
        n=4,
        seed=0,
        on_prompt=lambda prompt: reported.append(prompt.text),
    )
    assert reported == [prompt.text for prompt in reversed(proposals.prompts)]
    assert proposals.prompts == (await propose(proposer(FakeModel(seeded)))).prompts


async def test_an_error_that_concerns_every_call_cancels_the_other_samples() -> None:
    class Stuck(FakeModel):
        async def complete(self, messages, sampling):
            completion = await super().complete(messages, sampling)
            await asyncio.sleep(3600)
            return completion

    replies = iter([BudgetExhausted("no calls left")])
    model = Stuck(lambda messages, sampling: next(replies, "<START>prompt<END>"))
    async with asyncio.timeout(20):
        with pytest.raises(BudgetExhausted):
            await propose(proposer(model))
    assert len(asyncio.all_tasks()) == 1


async def test_calls_before_a_failure_are_counted() -> None:
    long = f"<START>{'word ' * 9}<END>"
    model = FakeModel.scripted([long, long, ModelUnavailable("gone", 3)])
    made = proposer(model, max_samples=4)
    proposals = await made.propose(candidate("word", 0.5), Direction(), step_size=4, exemplars=[], n=1, seed=0)
    assert (proposals.prompts, proposals.num_rejected) == ((), 2)
    assert (proposals.usage.requests, proposals.usage.failures, proposals.usage.retries) == (2, 1, 3)


async def test_a_prompt_that_breaks_a_placeholder_is_dropped() -> None:
    texts = ("Sort {{x}}.", "Sort it.", "Sort {{ x }} and {{ x }}.", "Sort {{ X }}.", "{% if x %}{{ x }}{% endif %}")
    model = FakeModel.scripted(f"<START>{text}<END>" for text in texts)
    current = candidate("File {{ x }}.", 0.5)
    made = proposer(model, position=Position.TEMPLATE, rules=Rules(initial=current.prompt, is_template=True))
    proposals = await made.propose(current, Direction(), step_size=4, exemplars=[], n=len(texts), seed=0)
    assert proposals.prompts == (Prompt("Sort {{x}}."),)
    assert proposals.broken == ("placeholders",) * 4
