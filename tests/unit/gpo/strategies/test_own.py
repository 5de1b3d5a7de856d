"""What the methods of a user's strategy raise and return during a search."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpo.errors import BudgetExhausted, StrategyError
from gpo.prompt import Prompt
from gpo.strategies.acceptance import Acceptance, BestOfStep
from gpo.strategies.own import OwnAcceptance, OwnRefinement, OwnRetriever, OwnSchedule
from gpo.strategies.refinement import Generation, Refinement
from gpo.strategies.retrieval import RecencyRetriever, Retriever
from gpo.strategies.schedule import FixedSchedule, StepSizeSchedule
from gpo.testing import AcceptanceContract, RefinementContract, RetrieverContract, ScheduleContract
from gpo.testing.samples import TRAJECTORIES, candidate, dropped
from gpo.trajectory import Candidate
from gpo.user_code.functions import FunctionReference

SEVERAL = TRAJECTORIES["several steps, with ties"]
Write = Callable[[str], str]


def reference(source: str, module: Write, folder: Path) -> FunctionReference:
    """A function ``make`` in a module with this source."""
    return FunctionReference(module(f"from gpo.testing.samples import *\n{source}"), "make", (str(folder),))


def returning(method: str, value: str, module: Write, folder: Path) -> FunctionReference:
    """A function that makes an object whose method (with its parameters) returns this, as Python source."""
    return reference(f"class make:\n    {method}: return {value}\n", module, folder)


class TestOwnAcceptance(AcceptanceContract):
    def make(self) -> Acceptance:
        return OwnAcceptance(FunctionReference(BestOfStep.__module__, "BestOfStep"))


class TestOwnRetriever(RetrieverContract):
    def make(self) -> Retriever:
        return OwnRetriever(FunctionReference(RecencyRetriever.__module__, "RecencyRetriever"))


class TestOwnSchedule(ScheduleContract):
    largest = 7

    def make(self) -> StepSizeSchedule:
        return OwnSchedule(FunctionReference(FixedSchedule.__module__, "FixedSchedule"), {"size": 7}, {"num_steps": 3})


class TestOwnRefinement(RefinementContract):
    def make(self) -> Refinement:
        return OwnRefinement(FunctionReference(Generation.__module__, "Generation"))


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("None", "choose of own_.*:make returned None, not a candidate of the step or of an earlier one"),
        ("candidate('other')", "not a candidate of the step"),
        ("candidates[1]", "a candidate that was dropped"),
        ("candidates[9]", r"choose of own_.* failed: IndexError: tuple index out of range \(.*own_.*\.py, line 3\)"),
    ],
)
def test_a_choice_must_be_a_prompt_of_the_search(value: str, problem: str, module: Write, tmp_path: Path) -> None:
    own = OwnAcceptance(returning("def choose(self, trajectory, candidates)", value, module, tmp_path))
    with pytest.raises(StrategyError, match=problem):
        own.choose(SEVERAL, (candidate("new"), dropped("given up", 1.0)))


def test_an_earlier_or_the_current_prompt_may_be_chosen(module: Write, tmp_path: Path) -> None:
    for value, chosen in (("trajectory.initial", SEVERAL.initial), ("trajectory.current", SEVERAL.current)):
        own = OwnAcceptance(returning("def choose(self, trajectory, candidates)", value, module, tmp_path))
        assert own.choose(SEVERAL, ()) is chosen


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("None", "retrieve of own_.* returned None, not a list or a tuple"),
        ("trajectory.history[:3]", "not up to 2 different candidates"),
        ("[trajectory.initial] * 2", "not up to 2 different candidates"),
        ("[trajectory.current]", "not all past candidates without the current one"),
        ("[candidate('other')]", "not all past candidates"),
        ("['Think.']", "not all past candidates"),
        ("[trajectory.initial, 1 / 0]", "retrieve of own_.* failed: ZeroDivisionError"),
    ],
)
async def test_past_prompts_must_be_those_of_the_search(
    value: str, problem: str, module: Write, tmp_path: Path
) -> None:
    own = OwnRetriever(returning("async def retrieve(self, trajectory, *, k)", value, module, tmp_path))
    with pytest.raises(StrategyError, match=problem):
        await own.retrieve(SEVERAL, k=2)


async def test_past_prompts_may_be_a_list(module: Write, tmp_path: Path) -> None:
    own = OwnRetriever(
        returning("async def retrieve(self, trajectory, *, k)", "[trajectory.initial]", module, tmp_path)
    )
    assert await own.retrieve(SEVERAL, k=2) == (SEVERAL.initial,)


@pytest.mark.parametrize("value", ["0", "2.0", "True", "'9'"])
def test_a_step_size_must_be_a_whole_number(value: str, module: Write, tmp_path: Path) -> None:
    own = OwnSchedule(returning("def __call__(self, step)", value, module, tmp_path), {}, {"num_steps": 3})
    with pytest.raises(StrategyError, match=r"step 4 of own_.* returned .*, not a whole number from 1, or None"):
        own(4)
    with pytest.raises(StrategyError, match="step 0 of own_"):
        own.check()


async def test_an_error_that_the_program_knows_stays_itself_even_in_a_group(module: Write, tmp_path: Path) -> None:
    source = """
class make:
    async def retrieve(self, trajectory, *, k):
        import asyncio
        from gpo.errors import BudgetExhausted
        async def fail():
            raise BudgetExhausted("calls are used up")
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
"""
    own = OwnRetriever(reference(source, module, tmp_path))
    with pytest.raises(BudgetExhausted, match="calls are used up"):
        await own.retrieve(SEVERAL, k=2)


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_a_cancelled_error_is_a_failure_unless_the_search_is_cancelled(
    is_cancelled: bool, module: Write, tmp_path: Path
) -> None:
    source = """
class make:
    async def retrieve(self, trajectory, *, k):
        import asyncio
        if not trajectory.steps:
            raise asyncio.CancelledError("of a task that it awaited")
        await asyncio.Event().wait()
"""
    own = OwnRetriever(reference(source, module, tmp_path))
    if not is_cancelled:
        with pytest.raises(StrategyError, match=r"retrieve of .* failed: CancelledError: of a task that it awaited"):
            await own.retrieve(TRAJECTORIES["only the initial prompt"], k=2)
        return
    retrieving = asyncio.create_task(own.retrieve(SEVERAL, k=2))
    await asyncio.sleep(0)
    retrieving.cancel()
    await asyncio.wait([retrieving])
    assert retrieving.cancelled()


def test_options_and_wanted_values_are_passed_and_others_are_not(module: Write, tmp_path: Path) -> None:
    source = "def make(num_steps, low): return lambda step: low + num_steps\n"
    given: dict[str, Any] = {"num_steps": 3, "embedder": object()}
    assert OwnSchedule(reference(source, module, tmp_path), {"low": 4}, given)(0) == 7
    assert (
        OwnSchedule(
            reference("def make(**options): return lambda _: options['low']\n", module, tmp_path), {"low": 4}, given
        )(0)
        == 4
    )


def test_a_chosen_candidate_is_the_one_of_the_search(module: Write, tmp_path: Path) -> None:
    own = OwnAcceptance(returning("def choose(self, trajectory, candidates)", "candidates[0]", module, tmp_path))
    new = candidate("new", 0.1)
    assert own.choose(SEVERAL, (new,)) is new
    assert isinstance(new, Candidate)
    assert new.prompt == Prompt("new")
