from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray

from actors.checkpoints import CheckpointStore
from actors.folder import Folder
from actors.search import Phase, Search, SearchKey, Update
from actors.slots import Placement
from actors.supervisor import Supervisor
from cluster.session.ray_connection import ray_connection
from gpo.data.task import Split
from gpo.errors import ModelRefused, RefusalReason
from gpo.evaluation.evaluator import Evaluation, Evaluator
from gpo.prompt import Prompt
from gpo.testing.fakes import FakeEvaluator, FakeProposer
from gpo.trajectory import Candidate
from tests.optimizers import fake_optimizer

NUM_STEPS = 3


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    from ray import cloudpickle

    # Actors cannot import a test module, so its classes and functions are pickled by value.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]
    with ray_connection("local", cpus_needed=4):
        yield


@dataclass(frozen=True)
class JournaledEvaluator:
    """Scores by length and logs every prompt in a file; ``before`` may act before that."""

    journal: Path
    before: Callable[[Path, Prompt, Split], None] | None = None
    takes_s: float = 0.0

    async def evaluate(
        self, prompts: Sequence[Prompt], split: Split, indices: Sequence[int] | None = None
    ) -> Sequence[Evaluation]:
        await asyncio.sleep(self.takes_s)
        for prompt in prompts:
            if self.before is not None:
                self.before(self.journal, prompt, split)
            with self.journal.open("a", encoding="utf-8") as file:
                file.write(f"{split} {prompt.text}\n")
        return await FakeEvaluator(lambda prompt: [len(prompt.text) % 7 / 7]).evaluate(prompts, split, indices)


def _rewritten(current: Candidate, n: int, seed: int) -> list[str]:
    return [f"{current.prompt.text} {seed % 1000 + index}" for index in range(n)]


def _search(evaluator: Evaluator, task: str = "task", seed: int = 0) -> Search:
    gpo = fake_optimizer(
        proposer=FakeProposer(_rewritten), evaluator=evaluator, num_steps=NUM_STEPS, num_neighbours=2, seed=seed
    )
    return Search(SearchKey(task, seed), Prompt("Think."), gpo)


async def _last_updates(
    searches: Sequence[Search], folder: Path, *, restarts: int = 2, per_actor: int = 8
) -> dict[SearchKey, Update]:
    supervisor = Supervisor(searches, CheckpointStore(Folder(str(folder))), Placement(per_actor, 0.1, restarts))
    last = {update.key: update async for update in supervisor.run()}
    assert {update.phase for update in last.values()} == {Phase.DONE}
    return last


def _die(journal: Path, prompt: Prompt, split: Split) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_once(journal: Path, prompt: Prompt, split: Split) -> None:
    """Kill the process at the first candidate of the third step."""
    died = journal.with_name("died")
    if len(prompt.words) == 4 and not died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def _refuse_key(journal: Path, prompt: Prompt, split: Split) -> None:
    raise ModelRefused("HTTP 401: no", RefusalReason.KEY, "the-model", "http://there/v1")


def _log_pid(journal: Path, prompt: Prompt, split: Split) -> None:
    with journal.with_name("pids").open("a", encoding="utf-8") as file:
        file.write(f"{journal.name} {os.getpid()}\n")


async def test_searches_of_a_group_share_an_actor_and_are_saved(tmp_path: Path) -> None:
    searches = [
        _search(JournaledEvaluator(tmp_path / f"{task}-{seed}", _log_pid), task, seed)
        for task in ("a", "b")
        for seed in (0, 1, 2)
    ]
    last = await _last_updates(searches, tmp_path / "checkpoints", per_actor=2)
    assert last.keys() == {search.key for search in searches}
    store = CheckpointStore(Folder(str(tmp_path / "checkpoints")))
    for key, update in last.items():
        assert update.error is None
        assert update.checkpoint is not None
        assert len(update.checkpoint.trajectory.steps) == NUM_STEPS
        assert store.load(key) == update.checkpoint
    lines = (tmp_path / "pids").read_text(encoding="utf-8").splitlines()
    pid_of = {name: process for name, _, process in (line.partition(" ") for line in lines)}
    assert list(Counter(pid_of.values()).values()) == [2, 2, 2]
    assert str(os.getpid()) not in pid_of.values()
    assert pid_of["a-0"] == pid_of["a-1"] != pid_of["a-2"] == pid_of["b-0"]


async def test_a_killed_actor_resumes_from_its_checkpoints_and_repeats_nothing(tmp_path: Path) -> None:
    async def outcome(run: str, before: Callable[[Path, Prompt, Split], None] | None) -> dict[SearchKey, Update]:
        (tmp_path / run).mkdir()
        killed = _search(JournaledEvaluator(tmp_path / run / "killed", before), seed=0)
        other = _search(JournaledEvaluator(tmp_path / run / "other"), seed=1)
        return await _last_updates([killed, other], tmp_path / run / "checkpoints")

    undisturbed = await outcome("calm", None)
    assert await outcome("killed", _die_once) == undisturbed
    assert (tmp_path / "killed" / "died").exists()
    journals = [(tmp_path / run / "killed").read_text(encoding="utf-8") for run in ("calm", "killed")]
    assert journals[0] == journals[1]


async def test_a_search_that_kills_its_actor_is_isolated_and_lost_alone(tmp_path: Path) -> None:
    # While they share one actor, none of them makes progress.
    poison = _search(JournaledEvaluator(tmp_path / "poison", _die), "poison")
    sound = [_search(JournaledEvaluator(tmp_path / f"sound-{seed}", takes_s=0.5), "sound", seed) for seed in (0, 1)]
    last = await _last_updates([poison, *sound], tmp_path / "checkpoints", restarts=1)
    assert [last[search.key].error for search in sound] == [None, None]
    error = last[poison.key].error
    assert error is not None
    assert error.startswith("TrajectoryLost: trajectory poison/0: its actor died 2 times")


async def test_a_refused_key_ends_all_searches_with_the_error_of_the_actor(tmp_path: Path) -> None:
    refused = _search(JournaledEvaluator(tmp_path / "refused", _refuse_key), seed=0)
    sound = _search(JournaledEvaluator(tmp_path / "sound"), seed=1)
    with pytest.raises(ModelRefused) as caught:
        await _last_updates([refused, sound], tmp_path / "checkpoints")
    assert (caught.value.reason, caught.value.model) == (RefusalReason.KEY, "the-model")
    assert caught.value.base_url == "http://there/v1"


async def test_actors_in_a_pool_run_later_searches(tmp_path: Path) -> None:
    actors: list[Any] = []

    class Spare:
        takes_back = True

        def give_back(self, actor: Any) -> None:
            actors.append(actor)

    async def run(name: str, *searches: Search, give_up: bool = False) -> dict[SearchKey, Update]:
        taken = [actors.pop() for _ in searches if actors]
        store = CheckpointStore(Folder(str(tmp_path / name)))
        supervisor = Supervisor(searches, store, Placement(1, 0.1, 2), taken, pool=Spare())
        last = {}
        async with aclosing(supervisor.run()) as updates:
            async for update in updates:
                last[update.key] = update
                if give_up:
                    break
        return last

    def pids() -> list[int]:
        found: list[int] = ray.get([actor.__ray_call__.remote(lambda _: os.getpid()) for actor in actors])
        return sorted(found)

    async def completes(name: str) -> None:
        first, second = (_search(JournaledEvaluator(tmp_path / f"{name}{seed}"), name, seed) for seed in (0, 1))
        last = await run(name, first, second)
        assert [last[search.key].error for search in (first, second)] == [None, None]

    await completes("whole")
    before = pids()
    assert len(set(before)) == 2
    # A search that is given up in the middle stops at once.
    slow = tmp_path / "slow-journal"
    slow.touch()
    await run("slow", _search(JournaledEvaluator(slow, takes_s=0.3), "slow"), give_up=True)
    asked = slow.read_text(encoding="utf-8")
    await completes("after")
    assert pids() == before
    await asyncio.sleep(1.0)
    assert slow.read_text(encoding="utf-8") == asked
    # An actor that died is not given back; its replacement is.
    dying = _search(JournaledEvaluator(tmp_path / "dying-journal", _die_once), "dying")
    assert (await run("dying", dying))[dying.key].error is None
    assert len(set(pids()) & set(before)) == 1
    assert len(pids()) == 2
    for actor in actors:
        ray.kill(actor)
