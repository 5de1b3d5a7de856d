"""Searches that begin with prompts which are not made from the initial one."""

from __future__ import annotations

import pytest

from gpo.checkpoint import Checkpoint, decode, encode
from gpo.data.example import Example
from gpo.data.task import Split
from gpo.evaluation.answer_format import Position
from gpo.models.protocol import Sampling, Usage
from gpo.optimizer import GPO
from gpo.prompt import Prompt
from gpo.scoring.adaptive import Adaptive
from gpo.scoring.candidates import CandidateScoring, FullScoring
from gpo.scoring.racing import Racing
from gpo.strategies.acceptance import BestSoFar
from gpo.strategies.batches import TrainBatches
from gpo.strategies.first_prompts import GivenPrompts, GoalMetaPrompt
from gpo.strategies.proposer import SamplingProposer
from gpo.strategies.schedule import CosineSchedule
from gpo.strategies.stopping import StoppingRule, steps_without_improvement
from gpo.testing.fakes import FakeEvaluator, FakeModel, FakeProposer
from gpo.trajectory import Direction, Trajectory
from tests.optimizers import fake_optimizer

INITIAL = Prompt("Answer.")
WORSE, BEST, LONG = Prompt("Guess."), Prompt("Think about it, then answer."), Prompt("Answer with one word.")
STEPS, EXAMPLES = 3, 6


def values(prompt: Prompt) -> list[float]:
    """The number of examples answered correctly rises with the number of words."""
    right = min(EXAMPLES, len(prompt.words))
    return [1.0] * right + [0.0] * (EXAMPLES - right)


def optimizer(**changes: object) -> GPO:
    settings: dict[str, object] = {
        "schedule": CosineSchedule(initial=50, final=10, num_steps=STEPS),
        "proposer": FakeProposer(lambda current, n, seed: [f"{current.prompt.text} {seed % 9}"] * n),
        "evaluator": FakeEvaluator(values),
        "acceptance": BestSoFar(),
        "num_steps": STEPS + 1,
        "batches": TrainBatches(8, batch_size=4, seed=7),
        "train": [None] * 8,
        "first": GivenPrompts((WORSE, BEST, LONG)),
    }
    return fake_optimizer(**{**settings, **changes})


async def search(gpo: GPO, trajectory: Trajectory | None = None) -> list[Trajectory]:
    start = trajectory or await gpo.start(INITIAL)
    return [start, *[later async for later in gpo.run(start)]]


SCORINGS = [
    FullScoring(),
    Racing(num_examples=EXAMPLES, block=2, alpha=0.1, max_unscored=0, seed=0),
    Adaptive(num_examples=EXAMPLES, block=2, most=4, max_unscored=0, seed=0),
]


@pytest.mark.parametrize("scoring", SCORINGS, ids=lambda scoring: type(scoring).__name__)
async def test_the_best_given_prompt_is_current_after_the_first_step(scoring: CandidateScoring) -> None:
    gpo = optimizer(scoring=scoring)
    first = (await search(gpo))[-1].steps[0]
    assert [candidate.prompt for candidate in first.candidates] == [WORSE, BEST, LONG]
    assert first.successor.prompt == BEST
    assert (first.has_first_prompts, first.step_size, first.direction) == (True, None, Direction())


async def test_the_given_prompts_cost_no_call_of_the_optimizer_model() -> None:
    gpo = optimizer(num_steps=1)
    (step,) = (await search(gpo))[-1].steps
    assert gpo.proposer.calls == []
    assert step.spending.optimizer == Usage()
    assert step.spending.task.requests == 3 * EXAMPLES


async def test_the_schedule_and_the_batches_begin_after_the_given_prompts() -> None:
    asked: list[int] = []

    class Batches(TrainBatches):
        def __call__(self, step: int) -> list[int]:
            asked.append(step)
            return super().__call__(step)

    given = optimizer(batches=Batches(8, batch_size=4, seed=7))
    last = (await search(given))[-1]
    assert [step.step_size for step in last.steps] == [None, 50, 30, 10]
    assert [step.has_first_prompts for step in last.steps] == [True, False, False, False]
    assert asked[1:] == [0, 1, 2]
    plain = (await search(optimizer(first=None, num_steps=STEPS)))[-1]
    assert [step.step_size for step in plain.steps] == [50, 30, 10]


@pytest.mark.parametrize("scoring", SCORINGS, ids=lambda scoring: type(scoring).__name__)
async def test_a_search_resumed_from_any_point_has_the_same_result(scoring: CandidateScoring) -> None:
    undisturbed = await search(optimizer(scoring=scoring))
    for trajectory in undisturbed:
        saved = decode(encode(Checkpoint(trajectory, {}))).trajectory
        assert (await search(optimizer(scoring=scoring), saved))[-1] == undisturbed[-1]


async def test_prompts_that_were_scored_are_not_scored_again() -> None:
    gpo = optimizer(first=GivenPrompts((INITIAL, BEST)), num_steps=1)
    (step,) = (await search(gpo))[-1].steps
    assert [candidate.prompt for candidate in step.candidates] == [BEST]
    assert [prompts for prompts, split in gpo.evaluator.calls if split is Split.VAL] == [(INITIAL,), (BEST,)]


async def test_a_step_of_given_prompts_does_not_use_up_patience() -> None:
    """None of them is better than the initial prompt, and neither is any later prompt."""
    gpo = optimizer(
        evaluator=FakeEvaluator(lambda prompt: [float(prompt == INITIAL)] * EXAMPLES),
        stopping=StoppingRule(patience=2),
    )
    last = (await search(gpo))[-1]
    assert len(last.steps) == 1 + 2
    assert steps_without_improvement(last) == 2


async def test_first_prompts_can_be_written_from_the_goal() -> None:
    replies = ["<START>Think about it, then answer.<END>", "<START>Guess.</START>", "I do not know.\n\nSorry."]
    model = FakeModel.scripted(replies)
    goal = "Answer the <START>question."
    writer = SamplingProposer(
        model=model, sampling=Sampling(), meta_prompt=GoalMetaPrompt(), position=Position.SYSTEM, goal=goal
    )
    train = [Example(f"question {number}", (f"answer {number}",)) for number in range(8)]
    gpo = optimizer(first=writer, num_candidates=3, num_exemplars=2, train=train, num_steps=1)
    (step,) = (await search(gpo))[-1].steps
    assert [candidate.prompt for candidate in step.candidates] == [BEST, WORSE]
    assert step.successor.prompt == BEST
    assert (step.has_first_prompts, step.samples.num_malformed, step.spending.optimizer.requests) == (True, 1, 3)
    for messages, sampling in model.calls:
        asked = messages[-1]["content"]
        assert asked.startswith("Write an instruction for this task: Answer the  question.")
        assert asked.count("Input: question") == 2
        assert sampling.stop == ("<END>",)
    assert len({sampling.seed for _, sampling in model.calls}) == 3


async def test_a_goal_without_any_usable_reply_leaves_the_initial_prompt() -> None:
    model = FakeModel(lambda _messages, _sampling: "One.\n\nTwo.")
    writer = SamplingProposer(
        model=model, sampling=Sampling(), meta_prompt=GoalMetaPrompt(), position=Position.SYSTEM, goal="Answer."
    )
    last = (await search(optimizer(first=writer, num_steps=2)))[-1]
    assert (last.steps[0].candidates, last.steps[0].successor.prompt) == ((), INITIAL)
    assert last.steps[1].step_size == 50
