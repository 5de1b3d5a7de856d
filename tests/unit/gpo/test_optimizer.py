from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

import pytest

from gpo.checkpoint import Checkpoint, decode, encode
from gpo.data.example import Example
from gpo.data.task import Split
from gpo.errors import EvaluationError, ModelUnavailable
from gpo.models.protocol import Usage
from gpo.optimizer import GPO
from gpo.prompt import Prompt, edit_distance
from gpo.scoring.candidates import CandidateScorer, silent
from gpo.strategies.acceptance import BestOfStep, StrictImprovement
from gpo.strategies.batches import TrainBatches
from gpo.strategies.proposer import ignore_prompt
from gpo.strategies.reflection import Reflection
from gpo.strategies.retrieval import RelevanceRetriever
from gpo.strategies.schedule import CosineSchedule
from gpo.strategies.stopping import StoppingRule
from gpo.testing.fakes import FakeEvaluator, FakeProposer, WordEmbedder
from gpo.trajectory import Candidate, Spending, Trajectory
from tests.optimizers import fake_optimizer

INITIAL = Prompt("Let's think step by step.")
STEPS = 5
TRAIN = [Example(f"input {number}", (f"answer {number}",)) for number in range(10)]


def rewrite(current: Candidate, n: int, seed: int) -> list[str]:
    """Prompts that depend on the current prompt and the seed; one repeats the current prompt, one another."""
    fresh = [f"{current.prompt.text} {(seed >> 8 * index) % 50}" for index in range(n - 2)]
    return [*fresh, current.prompt.text, fresh[0]]


def values(prompt: Prompt) -> list[float]:
    """A value for each of four examples, from the prompt's hash."""
    return [int(digit, 16) / 15 for digit in prompt.id[:4]]


def optimizer(**changes: object) -> GPO:
    settings: dict[str, object] = {
        "retriever": RelevanceRetriever(WordEmbedder()),
        "schedule": CosineSchedule(initial=50, final=10, num_steps=STEPS),
        "proposer": FakeProposer(rewrite),
        "evaluator": FakeEvaluator(values),
        "num_steps": STEPS,
        "num_candidates": 4,
        "num_neighbours": 3,
        "train": TRAIN,
        "batches": TrainBatches(len(TRAIN), batch_size=4, seed=7),
        "num_exemplars": 2,
        "seed": 7,
    }
    return fake_optimizer(**{**settings, **changes})


async def search(gpo: GPO, trajectory: Trajectory | None = None) -> list[Trajectory]:
    """All trajectories of a search, including the one it starts from."""
    start = trajectory or await gpo.start(INITIAL)
    return [start, *[later async for later in gpo.run(start)]]


async def test_every_step_yields_its_proposal_and_then_its_scores() -> None:
    start, *yielded = await search(optimizer())
    assert start.steps == ()
    assert [len(trajectory.steps) for trajectory in yielded] == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]
    assert [trajectory.proposal is not None for trajectory in yielded] == [True, False] * STEPS


async def test_a_finished_search_yields_nothing_more() -> None:
    done = (await search(optimizer()))[-1]
    assert await search(optimizer(), done) == [done]
    assert await search(optimizer(num_steps=2), done) == [done]


@pytest.mark.parametrize("acceptance", [BestOfStep(), StrictImprovement()])
async def test_a_search_resumed_from_any_point_has_the_same_result(acceptance: BestOfStep | StrictImprovement) -> None:
    undisturbed = await search(optimizer(acceptance=acceptance))
    for trajectory in undisturbed:
        saved = decode(encode(Checkpoint(trajectory, {}))).trajectory
        assert (await search(optimizer(acceptance=acceptance), saved))[-1] == undisturbed[-1]


async def test_a_search_that_stops_early_stops_after_the_same_step_when_it_is_resumed() -> None:
    undisturbed = await search(optimizer(stopping=StoppingRule(patience=2)))
    assert len(undisturbed[-1].steps) < STEPS
    for trajectory in undisturbed:
        saved = decode(encode(Checkpoint(trajectory, {}))).trajectory
        assert (await search(optimizer(stopping=StoppingRule(patience=2)), saved))[-1] == undisturbed[-1]
    # Without the rule, the same search continues.
    assert (await search(optimizer(), undisturbed[-1]))[-1] == (await search(optimizer()))[-1]


async def test_a_resumed_search_does_not_repeat_a_proposal() -> None:
    under_way = (await search(optimizer()))[-2]
    assert under_way.proposal is not None
    gpo = optimizer()
    await search(gpo, under_way)
    assert gpo.proposer.calls == []
    assert gpo.evaluator.calls == [((prompt,), Split.VAL) for prompt in under_way.proposal.prompts]


async def test_different_seeds_give_different_searches() -> None:
    first, second = [(await search(optimizer(seed=seed)))[-1] for seed in (7, 8)]
    assert first.initial == second.initial
    assert first.history != second.history


async def test_every_step_draws_its_own_random_numbers() -> None:
    seeds: list[int] = []

    def record(current: Candidate, n: int, seed: int) -> list[str]:
        seeds.append(seed)
        return []

    await search(optimizer(proposer=FakeProposer(record)))
    await search(optimizer(proposer=FakeProposer(record)))
    assert len(set(seeds)) == STEPS
    assert seeds[:STEPS] == seeds[STEPS:]


async def test_no_prompt_is_evaluated_twice_and_only_val_is() -> None:
    gpo = optimizer()
    last = (await search(gpo))[-1]
    evaluated = [prompt for prompts, _ in gpo.evaluator.calls for prompt in prompts]
    assert len(set(evaluated)) == len(evaluated)
    assert evaluated == [candidate.prompt for candidate in last.history]
    assert {split for _, split in gpo.evaluator.calls} == {Split.VAL}


async def test_steps_record_what_they_saw_and_did() -> None:
    gpo = optimizer()
    last = (await search(gpo))[-1]
    current = last.initial
    for step, (_, direction, exemplars) in zip(last.steps, gpo.proposer.calls, strict=True):
        assert step.direction == direction
        assert current.prompt not in {neighbour.prompt for neighbour in direction.neighbours}
        assert set(exemplars) <= {TRAIN[position] for position in gpo.batches(step.index)}
        assert len(set(exemplars)) == 2
        assert all(
            candidate.edit_distance == edit_distance(current.prompt, candidate.prompt) > 0
            for candidate in step.candidates
        )
        assert all(candidate.score.values_E == tuple(values(candidate.prompt)) for candidate in step.candidates)
        assert step.successor is max(step.candidates, key=lambda candidate: candidate.score.mean)
        current = step.successor
    known = [sum(len(earlier.candidates) for earlier in last.steps[:index]) for index in range(STEPS)]
    assert [len(step.direction.neighbours) for step in last.steps] == [min(3, others) for others in known]


class Reflecting:
    """Reflects on every prompt by its id."""

    async def reflect(self, current: Candidate, batch: Sequence[int], *, seed: int) -> Reflection:
        return Reflection(f"on {current.prompt.id} and {len(batch)}", Spending(optimizer=Usage(requests=1)))


class Summarizing:
    async def summarize(self, trajectory: Trajectory, *, seed: int) -> Reflection:
        return Reflection(f"after {len(trajectory.steps)}", Spending(optimizer=Usage(requests=1)))


async def test_each_reflection_belongs_to_its_prompt() -> None:
    last = (await search(optimizer(reflector=Reflecting(), summarizer=Summarizing(), num_neighbours=99)))[-1]
    currents = [last.initial, *(step.successor for step in last.steps)]
    for step, current in zip(last.steps, currents, strict=False):
        assert step.direction.reflection == f"on {current.prompt.id} and {len(optimizer().batches(step.index))}"
        assert step.direction.summary == f"after {step.index}"
        known = {candidate.prompt for candidate in currents[: step.index]}
        shown = zip(step.direction.neighbours, step.direction.neighbour_reflections, strict=True)
        assert {neighbour.prompt for neighbour, reflection in shown if reflection is not None} == known - {
            current.prompt
        }
    assert last.spending.optimizer.requests == STEPS * (4 + 2)


@pytest.mark.parametrize("texts", [[], [INITIAL.text, INITIAL.text]], ids=["nothing", "nothing new"])
async def test_without_a_new_prompt_the_current_one_stays(texts: list[str]) -> None:
    gpo = optimizer(proposer=FakeProposer(lambda current, n, seed: texts))
    last = (await search(gpo))[-1]
    assert len(last.steps) == STEPS
    assert all(step.successor is last.initial and step.candidates == () for step in last.steps)
    assert sum(len(prompts) for prompts, _ in gpo.evaluator.calls) == 1
    assert [step.samples.num_malformed for step in last.steps] == [4 - len(texts)] * STEPS
    assert [step.samples.num_repeated for step in last.steps] == [len(texts)] * STEPS


@pytest.mark.parametrize("failing_call", range(1, 6))
async def test_the_last_trajectory_yielded_survives_a_failure(failing_call: int) -> None:
    class Failing(FakeEvaluator):
        async def evaluate(self, prompts, split, indices=None):
            if len(self.calls) == failing_call:
                raise EvaluationError("too many unscored")
            return await super().evaluate(prompts, split, indices)

    gpo = optimizer(evaluator=Failing(values))
    last = await gpo.start(INITIAL)

    async def run_and_keep() -> None:
        nonlocal last
        async for trajectory in gpo.run(last):
            last = trajectory

    with pytest.raises(EvaluationError):
        await run_and_keep()
    # Two new prompts a step.
    assert len(last.steps) == (failing_call - 1) // 2
    assert (await search(optimizer(), last))[-1] == (await search(optimizer()))[-1]


async def test_a_step_needs_a_proposal() -> None:
    gpo = optimizer()
    async with CandidateScorer(gpo.evaluator, gpo.scoring, 4, silent) as under_way:
        with pytest.raises(ValueError, match="no proposal"):
            await gpo.step(await gpo.start(INITIAL), under_way)


class Stalling:
    """Something that begins, and then waits for ever."""

    def __init__(self) -> None:
        self.begun, self.ended = asyncio.Event(), asyncio.Event()

    async def stall(self) -> None:
        self.begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            self.ended.set()


class StallingProposer(FakeProposer):
    """Lets prompts arrive in the given order, and calls ``last`` before it returns."""

    def __init__(self, last: Callable[[], Awaitable[object]], order: Callable[[list[str]], Iterable[str]] = list):
        super().__init__(rewrite)
        self.last, self.order = last, order

    async def propose(self, current, direction, *, on_prompt=ignore_prompt, **settings):
        proposals = await super().propose(current, direction, **settings)
        for text in self.order([prompt.text for prompt in proposals.prompts]):
            on_prompt(Prompt(text))
            await asyncio.sleep(0)
        await self.last()
        return proposals


class StallingEvaluator(FakeEvaluator):
    """Scores the initial prompt, and calls ``first`` before it scores any other prompt."""

    def __init__(self, first: Callable[[], Awaitable[object]]) -> None:
        super().__init__(values)
        self.first = first

    async def evaluate(self, prompts, split, indices=None):
        if prompts != [INITIAL]:
            await self.first()
        return await super().evaluate(prompts, split, indices)


async def lost() -> None:
    raise ModelUnavailable("lost")


async def test_a_prompt_is_scored_while_other_prompts_are_sampled() -> None:
    scored = asyncio.Event()

    async def score() -> None:
        scored.set()

    # The proposer waits for a score before it returns.
    gpo = optimizer(proposer=StallingProposer(scored.wait), evaluator=StallingEvaluator(score))
    async with asyncio.timeout(20):
        assert (await search(gpo))[-1] == (await search(optimizer()))[-1]


@pytest.mark.parametrize("order", [list, reversed, lambda texts: texts[:1], lambda texts: []])
async def test_the_order_in_which_samples_arrive_changes_nothing(order: Callable[[list[str]], Iterable[str]]) -> None:
    async def nothing() -> None:
        return

    gpo = optimizer(proposer=StallingProposer(nothing, order))
    assert (await search(gpo))[-1] == (await search(optimizer()))[-1]
    evaluated = [prompt for prompts, _ in gpo.evaluator.calls for prompt in prompts]
    assert len(set(evaluated)) == len(evaluated)


async def test_a_failed_evaluation_cancels_the_sampling() -> None:
    stalling = Stalling()
    gpo = optimizer(proposer=StallingProposer(stalling.stall), evaluator=StallingEvaluator(lost))
    with pytest.raises(ModelUnavailable, match="lost"):
        await search(gpo)
    assert stalling.ended.is_set() == stalling.begun.is_set()
    assert len(asyncio.all_tasks()) == 1


async def test_a_failed_sampling_cancels_the_evaluations() -> None:
    stalling = Stalling()
    gpo = optimizer(proposer=StallingProposer(lost), evaluator=StallingEvaluator(stalling.stall))
    with pytest.raises(ModelUnavailable, match="lost"):
        await search(gpo)
    assert stalling.begun.is_set()
    assert stalling.ended.is_set()
    assert len(asyncio.all_tasks()) == 1


async def test_a_failed_evaluation_cancels_the_others_while_the_caller_is_busy() -> None:
    stalling = Stalling()

    async def first_fails() -> None:
        if stalling.begun.is_set():
            await asyncio.sleep(0.01)
            await lost()
        await stalling.stall()

    gpo = optimizer(evaluator=StallingEvaluator(first_fails))
    trajectories = gpo.run(await gpo.start(INITIAL))
    assert (await anext(trajectories)).proposal is not None
    async with asyncio.timeout(20):
        await stalling.ended.wait()
    with pytest.raises(ModelUnavailable, match="lost"):
        await anext(trajectories)


async def test_closing_the_generator_cancels_all_tasks() -> None:
    stalling = Stalling()
    gpo = optimizer(evaluator=StallingEvaluator(stalling.stall))
    trajectories = gpo.run(await gpo.start(INITIAL))
    await anext(trajectories)
    await stalling.begun.wait()
    await trajectories.aclose()
    assert stalling.ended.is_set()
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("at_work", ["sampling", "scoring"])
async def test_a_cancelled_search_makes_no_more_calls(at_work: str) -> None:
    stalling = Stalling()
    changes = {
        "sampling": {"proposer": StallingProposer(stalling.stall)},
        "scoring": {"evaluator": StallingEvaluator(stalling.stall)},
    }
    searching = asyncio.create_task(search(optimizer(**changes[at_work])))
    await stalling.begun.wait()
    searching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await searching
    assert stalling.ended.is_set()
    assert len(asyncio.all_tasks()) == 1


async def test_the_progress_of_a_step_is_reported() -> None:
    announced: list[tuple[int, int]] = []
    gpo = optimizer(num_steps=1)
    start = await gpo.start(INITIAL)
    async for _ in gpo.run(start, lambda *counts: announced.append(counts)):
        pass
    assert [evaluated for evaluated, _ in announced] == sorted(evaluated for evaluated, _ in announced)
    assert announced[-1] == (2, 2)
    assert {to_evaluate for _, to_evaluate in announced} <= {2, 4}
