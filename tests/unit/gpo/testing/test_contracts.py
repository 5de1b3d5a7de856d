"""The contract tests find mistakes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from gpo.evaluation.evaluator import Evaluation, Evaluator
from gpo.prompt import Prompt
from gpo.score import Partial
from gpo.scoring.candidates import FullScoring, Outcome, evaluated
from gpo.testing import AcceptanceContract, RefinementContract, RetrieverContract, ScheduleContract, ScoringContract
from gpo.trajectory import Candidate, Trajectory


class Worst:
    def choose(self, trajectory: Trajectory, candidates: Sequence[Candidate]) -> Candidate:
        return min(candidates, key=lambda one: one.score.mean, default=trajectory.current)


class WithCurrent:
    async def retrieve(self, trajectory: Trajectory, *, k: int) -> tuple[Candidate, ...]:
        return trajectory.history[:k]


class Vague:
    def instruction(self, evidence: str, step_size: int | None) -> str:
        return evidence


class AsksTwice(FullScoring):
    async def finish(
        self,
        evaluator: Evaluator,
        prompts: Sequence[Prompt],
        begun: Sequence[Evaluation],
        settled: Callable[[], object],
    ) -> Sequence[Outcome]:
        return [await evaluated(evaluator, prompt, range(24)) for prompt in prompts]


class LeavesOut(FullScoring):
    async def finish(
        self,
        evaluator: Evaluator,
        prompts: Sequence[Prompt],
        begun: Sequence[Evaluation],
        settled: Callable[[], object],
    ) -> Sequence[Outcome]:
        scores = [
            replace(one.score, values_E=(None, *one.score.values_E[1:]), partial=Partial(1, 0.9, 0.0)) for one in begun
        ]
        return [replace(one, score=score) for one, score in zip(begun, scores, strict=True)]


class Silent(FullScoring):
    async def begin(self, evaluator: Evaluator, prompt: Prompt, settled: Callable[[], object]) -> Evaluation:
        return await super().begin(evaluator, prompt, lambda: None)


@pytest.mark.parametrize(
    ("contract", "strategy", "failing"),
    [
        (AcceptanceContract, Worst, {"never_prefers_the_worse_of_two_candidates"}),
        (RetrieverContract, WithCurrent, {"selects_from_the_history_without_the_current_prompt"}),
        (ScheduleContract, lambda: lambda step: 10 - step, {"every_step_may_change_a_word"}),
        (RefinementContract, Vague, {"is_a_text_for_any_evidence_and_step_size", "states_the_step_size"}),
        (ScoringContract, AsksTwice, {"no_prompt_answers_an_example_twice", "every_answer_is_counted_in_the_spending"}),
        (ScoringContract, LeavesOut, {"the_best_prompt_answers_all_examples_in_the_end"}),
        (ScoringContract, Silent, {"every_prompt_is_reported_as_settled"}),
        (ScoringContract, FullScoring, set()),
    ],
)  # fmt: skip
async def test_a_contract_finds_a_mistake(contract: Any, strategy: Callable[[], Any], failing: set[str]) -> None:
    class OfStrategy(contract):  # type: ignore[misc]
        def make(self) -> Any:
            return strategy()

    found = set()
    for name, test in inspect.getmembers(OfStrategy(), inspect.ismethod):
        if name.startswith("test_"):
            try:
                done = test()
                if inspect.isawaitable(done):
                    await done
            except AssertionError:
                found.add(name.removeprefix("test_"))
    assert failing <= found
    assert bool(found) == bool(failing)
