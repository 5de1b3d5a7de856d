"""What the methods of a user's scoring raise and return during a search."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpo.errors import ModelUnavailable, StrategyError
from gpo.prompt import Prompt
from gpo.score import Partial, Score
from gpo.scoring.adaptive import Adaptive
from gpo.scoring.candidates import CandidateScoring
from gpo.scoring.own import OwnScoring
from gpo.testing import ScoringContract
from gpo.testing.fakes import FakeEvaluator
from gpo.trajectory import Candidate, Trajectory
from gpo.user_code.functions import FunctionReference

Write = Callable[[str], str]
GIVEN = {"num_val": 4, "max_unscored": 0.1, "seed": 0}
PARTLY = Trajectory(Candidate(Prompt("start"), Score((1.0, None, None, None), Partial(2, 0.5, 0.1))))
"""The initial prompt has one value; one call failed, and two examples were left out."""


class TestOwnScoring(ScoringContract):
    def make(self) -> CandidateScoring:
        given = {"num_examples": self.num_val, "num_val": self.num_val, "max_unscored": 0.1, "seed": 0}
        return OwnScoring(FunctionReference(Adaptive.__module__, "Adaptive"), {"block": 3, "most": 9}, given)


def scoring(methods: str, module: Write, folder: Path) -> OwnScoring:
    """Full scoring with these methods instead."""
    source = f"""
from dataclasses import replace
from gpo.score import *
from gpo.scoring.candidates import *
from gpo.evaluation.evaluator import Evaluation
from gpo.models.protocol import Usage
def evaluation(*values, **options): return Evaluation(Score(values, **options), Usage())
class make(FullScoring):
    {methods}
"""
    return OwnScoring(FunctionReference(module(source), "make", (str(folder),)), {}, GIVEN)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("None", "first of own_.* returned None, not an Evaluation"),
        ("evaluation(1.0, 0.0)", "whose score does not have 4 values from 0 to 1, or None"),
        ("evaluation(1.0, 0.0, 2.0, 0.0)", "whose score does not have 4 values from 0 to 1"),
        ("evaluation(None, None, None, None)", "whose mean is nan, not from 0 to 1"),
        ("evaluation(1.0, None, None, None, partial=Partial(3, 1.5))", "whose mean is 1.5, not from 0 to 1"),
        ("1 / 0", "first of own_.* failed: ZeroDivisionError"),
    ],
)
async def test_a_score_must_have_a_value_or_none_for_each_example(
    value: str, problem: str, module: Write, tmp_path: Path
) -> None:
    own = scoring(f"async def first(self, evaluator, prompt): return {value}", module, tmp_path)
    with pytest.raises(StrategyError, match=problem):
        await own.first(FakeEvaluator(lambda _: [0.0] * 4), Prompt("a"))
    step = scoring(f"async def finish(self, evaluator, prompts, begun, settled): return [{value}]", module, tmp_path)
    with pytest.raises(StrategyError, match=problem.replace("first", "finish")):
        await step.step(PARTLY).finish(FakeEvaluator(lambda _: [0.0] * 4), [Prompt("a")], [], lambda: None)


@pytest.mark.parametrize(
    ("methods", "problem"),
    [
        (
            "async def finish(self, evaluator, prompts, begun, settled): return None",
            "finish of .* returned None, not a l",
        ),
        (
            "async def finish(self, evaluator, prompts, begun, settled): return []",
            "not one outcome for each of 1 prompts",
        ),
        (
            "async def begin(self, evaluator, prompt, settled): return 0.5",
            "begin of .* returned 0.5, not an Evaluation",
        ),
        ("async def begin(self, evaluator, prompt): return 0.5", "step of .* whose method begin cannot be called as"),
        ("def step(self, trajectory): return None", "step of .* returned None, which has no method async begin"),
    ],
)
async def test_a_step_must_give_an_outcome_for_each_prompt(
    methods: str, problem: str, module: Write, tmp_path: Path
) -> None:
    own, evaluator = scoring(methods, module, tmp_path), FakeEvaluator(lambda _: [0.0] * 4)

    async def score() -> None:
        step = own.step(PARTLY)
        begun = await step.begin(evaluator, Prompt("a"), lambda: None)
        await step.finish(evaluator, [Prompt("a")], [begun], lambda: None)

    with pytest.raises(StrategyError, match=problem):
        await score()


@pytest.mark.parametrize("method", ["recheck", "unconfirmed"])
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("None", "returned None, not a list or a tuple"),
        ("[trajectory.initial]", "not an Unanswered of a prompt of the search"),
        ("[Unanswered(replace(trajectory.initial, edit_distance=1), (1,))]", "not an Unanswered of a prompt"),
        ("[Unanswered(trajectory.initial, ())]", "whose indices are not examples that were left out"),
        ("[Unanswered(trajectory.initial, (0,))]", "whose indices are not examples that were left out"),
        ("[Unanswered(trajectory.initial, (1, 1))]", "whose indices are not examples that were left out"),
        ("[Unanswered(trajectory.initial, (1, 2, 3))]", "whose indices are not examples that were left out"),
        ("[Unanswered(trajectory.initial, (4,))]", "whose indices are not examples that were left out"),
    ],
)
def test_no_prompt_is_asked_again_what_it_was_asked(
    method: str, value: str, problem: str, module: Write, tmp_path: Path
) -> None:
    own = scoring(f"def {method}(self, trajectory): return {value}", module, tmp_path)
    with pytest.raises(StrategyError, match=problem):
        getattr(own, method)(PARTLY)


def test_examples_that_were_left_out_may_be_asked(module: Write, tmp_path: Path) -> None:
    source = "def unconfirmed(self, trajectory): return [Unanswered(trajectory.initial, (1, 3))]"
    (one,) = scoring(source, module, tmp_path).unconfirmed(PARTLY)
    assert one.indices == (1, 3)


@pytest.mark.parametrize(
    "value", ["(trajectory, ())", "(trajectory, candidates[::-1])", "candidates", "(None, candidates)"]
)
def test_renewed_scores_are_of_the_same_prompts(value: str, module: Write, tmp_path: Path) -> None:
    own = scoring(f"def renewed(self, trajectory, candidates=()): return {value}", module, tmp_path)
    new: list[Any] = [Candidate(Prompt(text), Score((1.0,) * 4)) for text in ("a", "b", "c")]
    with pytest.raises(StrategyError, match=r"renewed of own_.*"):
        own.renewed(PARTLY, new)


async def test_a_failure_of_a_model_stays_itself(module: Write, tmp_path: Path) -> None:
    class Down(FakeEvaluator):
        async def evaluate(self, *arguments: Any, **options: Any) -> Any:
            raise ModelUnavailable("HTTP 503")

    own = scoring("pass", module, tmp_path)
    with pytest.raises(ModelUnavailable, match="HTTP 503"):
        await own.first(Down(lambda _: []), Prompt("a"))
