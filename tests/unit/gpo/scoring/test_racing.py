from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from gpo.checkpoint import Checkpoint, decode, encode
from gpo.data.task import Split
from gpo.errors import BudgetExhausted, PromptUnscored
from gpo.evaluation.evaluator import Evaluation
from gpo.optimizer import GPO
from gpo.prompt import Prompt
from gpo.score import Score
from gpo.scoring.candidates import FullScoring
from gpo.scoring.racing import Racing
from gpo.strategies.acceptance import Acceptance, BestOfStep, StrictImprovement, WithinError
from gpo.strategies.retrieval import ImportanceRetriever
from gpo.testing.fakes import FakeEvaluator, FakeProposer
from gpo.trajectory import Trajectory
from tests.optimizers import fake_optimizer

SIZE, BLOCK = 100, 10
Values = Sequence[float | None]


class Recording(FakeEvaluator):
    """Notes which examples each prompt is asked, in order, and in which rounds."""

    def __init__(self, values: Callable[[Prompt], Values]) -> None:
        super().__init__(values)
        self.asked: dict[Prompt, list[int]] = {}
        self.sizes: dict[Prompt, list[int]] = {}

    async def evaluate(
        self, prompts: Sequence[Prompt], split: Split, indices: Sequence[int] | None = None
    ) -> Sequence[Evaluation]:
        assert split is Split.VAL
        chosen = list(range(SIZE)) if indices is None else list(indices)
        for prompt in prompts:
            self.asked.setdefault(prompt, []).extend(chosen)
            self.sizes.setdefault(prompt, []).append(len(chosen))
        return await super().evaluate(prompts, split, indices)


def racing(**changes: object) -> Racing:
    return replace(Racing(num_examples=SIZE, block=BLOCK, alpha=0.05, max_unscored=0.05, seed=3), **changes)


def right_about(share: float, salt: str = "") -> Values:
    """Right about so many examples, the easiest first: a better prompt is right about all that a worse one is."""
    return [float(Random(f"{salt}{index}").random() < share) for index in range(SIZE)]


async def race(
    rows: Sequence[Values], made: Racing | None = None, settled: list[None] | None = None
) -> tuple[list[Any], Recording]:
    """The evaluations of prompts with these values, in order."""
    made, prompts = made or racing(), [Prompt(str(number)) for number in range(len(rows))]
    evaluator = Recording(lambda prompt: rows[int(prompt.text)])
    log: list[None] = [] if settled is None else settled
    begun = [await made.begin(evaluator, prompt, lambda: log.append(None)) for prompt in prompts]
    evaluations = await made.finish(evaluator, prompts, begun, lambda: log.append(None))
    assert len(log) == len(rows)
    return list(evaluations), evaluator


async def test_the_winner_is_scored_in_full_and_the_far_behind_are_not() -> None:
    rows = [right_about(share) for share in (0.3, 0.9, 0.2, 0.5)]
    evaluations, evaluator = await race(rows)
    assert [evaluation.score.partial is None for evaluation in evaluations] == [False, True, False, False]
    assert evaluations[1].score == Score(tuple(rows[1]))
    for evaluation, row, asked in zip(evaluations, rows, evaluator.asked.values(), strict=True):
        assert len(set(asked)) == len(asked) == evaluation.usage.requests
        expected = tuple(value if index in asked else None for index, value in enumerate(row))
        assert evaluation.score.values_E == expected
        assert evaluation.score.num_unscored == 0
        if evaluation.score.partial:
            assert evaluation.score.partial.num_left_out == SIZE - len(asked)


async def test_all_candidates_get_the_same_examples_in_an_order_that_the_seed_decides() -> None:
    rows = [right_about(share) for share in (0.3, 0.9, 0.2, 0.88)]
    _, evaluator = await race(rows)
    order = evaluator.asked[Prompt("1")]
    assert sorted(order) == list(range(SIZE)) != order
    assert all(asked == order[: len(asked)] for asked in evaluator.asked.values())
    assert racing().order == order != racing(seed=4).order


async def test_each_round_makes_as_many_calls_as_the_first_and_the_last_candidate_gets_the_rest() -> None:
    rows = [right_about(0.95), *[right_about(0.1)] * 7]
    _, evaluator = await race(rows, racing(block=20))
    assert evaluator.sizes[Prompt("0")] == [20, 80]
    rows = [right_about(0.95), right_about(0.95), *[right_about(0.1)] * 6]
    _, evaluator = await race(rows, racing(block=15))
    assert evaluator.sizes[Prompt("1")] == [15, 60, 25]


async def test_no_candidate_and_a_single_one_need_no_race() -> None:
    assert (await race([]))[0] == []
    (evaluation,), evaluator = await race([right_about(0.4)])
    assert evaluation.score == Score(tuple(right_about(0.4)))
    assert evaluator.sizes[Prompt("0")] == [BLOCK, SIZE - BLOCK]


async def test_a_candidate_that_cannot_catch_up_is_dropped_at_any_level() -> None:
    order = racing().order
    ahead = [1.0] * SIZE
    behind = [0.0 if order.index(index) < 60 else 1.0 for index in range(SIZE)]
    evaluations, _ = await race([ahead, behind], racing(block=60, alpha=1e-300))
    assert [evaluation.score.partial is None for evaluation in evaluations] == [True, False]
    # Where it could draw level, it is kept: the first of equals would win.
    evaluations, _ = await race([ahead, behind], racing(block=50, alpha=1e-300))
    assert [evaluation.score.partial is None for evaluation in evaluations] == [True, True]


async def test_the_level_covers_all_comparisons_together() -> None:
    """One candidate that would be dropped alone is kept among others: one of many falls behind by chance."""
    order = racing().order
    # Two of twenty in which the leader is right and the other is not.
    behind = [0.0 if order.index(index) < 4 else 0.5 for index in range(SIZE)]
    ahead = [0.5] * SIZE
    alone, _ = await race([ahead, behind], racing(block=20, alpha=0.1))
    among, _ = await race([ahead, behind, *[ahead] * 20], racing(block=20, alpha=0.1))
    assert alone[1].score.partial is not None
    assert among[1].score.partial is None or among[1].usage.requests > alone[1].usage.requests


async def test_the_estimate_is_the_winner_s_mean_less_the_lead() -> None:
    order = racing().order
    # The examples asked first are easy: both are better there than on the rest.
    easy = set(order[:30])
    ahead = [1.0 if index in easy else 0.6 for index in range(SIZE)]
    behind = [0.5 - 0.01 * (index % 3) if index in easy else 0.1 for index in range(SIZE)]
    evaluations, _ = await race([ahead, behind], racing(block=30))
    score = evaluations[1].score
    assert score.partial is not None
    assert score.mean == pytest.approx(0.72 - (1.0 - score.mean_of_scored))
    assert score.mean < score.mean_of_scored
    assert score.stderr == Score(score.scored).stderr


async def test_unscored_examples_count_for_neither_side() -> None:
    rows: list[Values] = [right_about(share) for share in (0.3, 0.9)]
    rows[1] = [None if index % 25 == 0 else value for index, value in enumerate(rows[1])]
    evaluations, _ = await race(rows)
    assert evaluations[1].score == Score(tuple(rows[1]))
    assert evaluations[0].score.partial is not None
    assert evaluations[0].score.num_unscored == 0


async def test_more_unscored_examples_than_tolerated_are_an_error_however_they_are_spread() -> None:
    rows: list[Values] = [[None if index % 16 == 0 else 1.0 for index in range(SIZE)]]
    outcomes, _ = await race([*rows, right_about(1.0)])
    assert isinstance(outcomes[0], PromptUnscored)
    assert re.search(r"6 of 100 val examples stayed unscored .* share of 0\.05", str(outcomes[0]))
    assert outcomes[1].score.mean == 1
    evaluations, _ = await race([*rows, rows[0]], racing(max_unscored=0.07))
    assert evaluations[0].score.num_unscored == 7


async def test_a_prompt_without_any_verdict_so_far_is_kept_until_there_are_some() -> None:
    order = racing().order
    late = [None if order.index(index) < BLOCK else 1.0 for index in range(SIZE)]
    evaluations, _ = await race([right_about(0.5), late], racing(max_unscored=0.2))
    assert evaluations[1].score == Score(tuple(late))


@pytest.mark.parametrize("alpha", [0.05, 0.25])
async def test_a_round_loses_the_best_no_more_often_than_alpha_says(alpha: float) -> None:
    """Where all are equally good, and right about different examples: the hardest case."""
    # After half of the examples, those who are left get the other half.
    lost, left_out, times = 0, 0, 150
    for number in range(times):
        draw = Random(f"level/{number}")
        rows = [[float(draw.random() < 0.7) for _ in range(SIZE)] for _ in range(6)]
        evaluations, _ = await race(rows, racing(block=SIZE // 2, alpha=alpha))
        best = max(sum(row) for row in rows)
        kept = [sum(row) for row, evaluation in zip(rows, evaluations, strict=True) if not evaluation.score.partial]
        lost += best not in kept
        left_out += sum(evaluation.score.partial is not None for evaluation in evaluations)
    assert lost <= alpha * times
    assert left_out > times / 10


def optimizer(**changes: object) -> GPO:
    settings: dict[str, object] = {
        "retriever": ImportanceRetriever(),
        "proposer": FakeProposer(lambda current, n, seed: [f"{seed + index}" for index in range(n)]),
        "evaluator": Recording(lambda prompt: right_about(int(prompt.id[:2], 16) / 256)),
        "num_steps": 4,
        "num_candidates": 6,
        "num_neighbours": 30,
        "scoring": racing(),
    }
    return fake_optimizer(**{**settings, **changes})


async def search(gpo: GPO, start: Trajectory | None = None) -> list[Trajectory]:
    start = start or await gpo.start(Prompt("start"))
    return [start, *[later async for later in gpo.run(start)]]


@pytest.mark.parametrize("acceptance", [BestOfStep(), StrictImprovement(), WithinError()])
async def test_a_search_finds_the_same_prompts_with_fewer_calls(acceptance: Acceptance) -> None:
    full = (await search(optimizer(acceptance=acceptance, scoring=FullScoring())))[-1]
    raced = (await search(optimizer(acceptance=acceptance)))[-1]
    assert raced.best == full.best
    assert [step.successor for step in raced.steps] == [step.successor for step in full.steps]
    assert raced.spending.task.requests < full.spending.task.requests / 2
    dropped = [candidate for candidate in raced.history if candidate.is_dropped]
    assert len(dropped) > 4
    assert raced.best.score.partial is None
    for step in raced.steps:
        assert step.successor.score.partial is None
        assert any(not candidate.is_dropped for candidate in step.candidates)
    # As neighbours they are shown with the rest.
    shown = {neighbour.prompt for step in raced.steps for neighbour in step.direction.neighbours}
    assert shown & {candidate.prompt for candidate in dropped}


@pytest.mark.parametrize("number", range(9))
async def test_a_race_resumed_from_any_point_has_the_same_result(number: int) -> None:
    undisturbed = await search(optimizer())
    saved = decode(encode(Checkpoint(undisturbed[number], {}))).trajectory
    assert saved == undisturbed[number]
    assert (await search(optimizer(), saved))[-1] == undisturbed[-1]


async def test_a_failure_in_a_round_cancels_the_others_and_is_raised() -> None:
    ended: list[Prompt] = []

    class Exhausted(Recording):
        async def evaluate(
            self, prompts: Sequence[Prompt], split: Split, indices: Sequence[int] | None = None
        ) -> Sequence[Evaluation]:
            if indices is None or prompts[0] not in self.asked:
                return await super().evaluate(prompts, split, indices)
            try:
                await asyncio.sleep(0.01 if not ended and len(self.calls) == 7 else 3600)
            finally:
                ended.append(prompts[0])
            raise BudgetExhausted("no calls left")

    made = Exhausted(lambda prompt: right_about(0.6))
    with pytest.raises(BudgetExhausted, match="no calls left"):
        async with asyncio.timeout(20):
            await search(optimizer(evaluator=made))
    assert len(ended) == 6
    assert len(asyncio.all_tasks()) == 1
