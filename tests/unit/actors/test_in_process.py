"""Searches in this process, without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from actors.checkpoints import CheckpointStore
from actors.folder import Folder
from actors.in_process import run_in_process
from actors.search import Phase, Search, SearchKey, Update
from gpo.data.task import Split
from gpo.errors import BudgetExhausted, EvaluationError, ModelUnavailable, OutOfReach, Part
from gpo.evaluation.evaluator import Evaluation
from gpo.prompt import Prompt
from gpo.testing.fakes import FakeEvaluator
from tests.optimizers import by_length, fake_optimizer

KEYS = (SearchKey("desk", 0), SearchKey("desk", 1))


@dataclass
class FailingEvaluator(FakeEvaluator):
    """Raises these errors in its first calls, one each."""

    failures: list[BaseException] = field(default_factory=list)

    async def evaluate(
        self, prompts: Sequence[Prompt], split: Split, indices: Sequence[int] | None = None
    ) -> Sequence[Evaluation]:
        if self.failures:
            raise self.failures.pop(0)
        return await super().evaluate(prompts, split, indices)


def search(key: SearchKey, *failures: BaseException) -> Search:
    optimizer = fake_optimizer(num_steps=2)
    return Search(key, Prompt("Say."), replace(optimizer, evaluator=FailingEvaluator(by_length, failures=[*failures])))


async def updates(folder: Path, *searches: Search) -> list[Update]:
    return [update async for update in run_in_process(searches, CheckpointStore(Folder.at(str(folder))))]


async def test_every_search_runs_to_its_end(tmp_path: Path) -> None:
    found = await updates(tmp_path, *map(search, KEYS))
    last = {update.key: update for update in found}
    assert {(key, update.phase, update.error) for key, update in last.items()} == {
        (key, Phase.DONE, None) for key in KEYS
    }
    assert all(update.checkpoint and len(update.checkpoint.trajectory.steps) == 2 for update in last.values())


async def test_an_error_of_one_search_ends_it_alone(tmp_path: Path) -> None:
    failure = EvaluationError("the metric failed")
    found = await updates(tmp_path, search(KEYS[0], failure), search(KEYS[1]))
    errors = {update.key: update.error for update in found if update.phase is Phase.DONE}
    assert errors == {KEYS[0]: "EvaluationError: the metric failed", KEYS[1]: None}


async def test_a_defect_is_logged_with_its_traceback(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = await updates(tmp_path, search(KEYS[0], ZeroDivisionError("a defect")))
    assert found[-1].error == "ZeroDivisionError: a defect"
    assert "Traceback" in caplog.text


@pytest.mark.timeout(60)
async def test_a_function_that_raises_what_a_cancellation_raises_ends_its_search(tmp_path: Path) -> None:
    found = await updates(tmp_path, search(KEYS[0], asyncio.CancelledError()), search(KEYS[1]))
    errors = {update.key: update.error for update in found if update.phase is Phase.DONE}
    problem = "RuntimeError: a function raised CancelledError, although the search was not cancelled"
    assert errors == {KEYS[0]: problem, KEYS[1]: None}


async def test_an_error_that_all_would_meet_ends_all(tmp_path: Path) -> None:
    with pytest.raises(BudgetExhausted, match=r"budget\.calls"):
        await updates(tmp_path, search(KEYS[0], BudgetExhausted("budget.calls: 9 of 9 are spent")), search(KEYS[1]))


async def test_a_limiter_out_of_reach_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    loop, slept = asyncio.get_running_loop(), asyncio.sleep

    async def sleep(seconds: float) -> None:
        if asyncio.get_running_loop() is loop:
            waits.append(seconds)
        else:  # something else, in another thread
            await slept(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    lost = OutOfReach(Part.LIMITER, "restarting")
    assert (await updates(tmp_path / "a", search(KEYS[0], lost, lost)))[-1].error is None
    assert [wait for wait in waits if wait] == [1.0, 2.0]
    found = await updates(tmp_path / "b", search(KEYS[0], *[lost] * 9))
    assert "TrajectoryLost: trajectory desk/0: the limiter could not be reached 5 times" in (found[-1].error or "")


async def test_closing_stops_the_searches_and_their_checkpoints_stay(tmp_path: Path) -> None:
    store = CheckpointStore(Folder.at(str(tmp_path)))
    async with aclosing(run_in_process([search(KEYS[0])], store)) as running:
        async for update in running:
            if update.checkpoint is not None:
                break
    saved = store.load(KEYS[0])
    assert saved is not None
    assert len(saved.trajectory.steps) < 2
    assert (await updates(tmp_path, search(KEYS[0])))[-1].phase is Phase.DONE


async def test_a_call_that_was_given_up_ends_the_search_with_its_reason(tmp_path: Path) -> None:
    found = await updates(tmp_path, search(KEYS[0], ModelUnavailable("HTTP 503")))
    assert found[-1].error == "ModelUnavailable: HTTP 503"
