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
from actors.failure_policy import Budgets, Fault
from actors.folder import Folder
from actors.search import Phase, Search, SearchKey, Update
from actors.slots import Placement, shards
from actors.supervisor import Supervisor
from cluster.session.ray_session import ray_session
from gpo.data.task import Split
from gpo.errors import ModelRefused, OutOfReach, Part, RefusalReason, StorageError
from gpo.evaluation.evaluator import Evaluation, Evaluator
from gpo.optimizer import GPO
from gpo.prompt import Prompt
from gpo.strategies.acceptance import BestOfStep
from gpo.strategies.batches import TrainBatches
from gpo.strategies.reflection import NoReflection
from gpo.strategies.retrieval import RecencyRetriever
from gpo.strategies.schedule import CosineSchedule
from gpo.strategies.summary import NoSummary
from gpo.testing.fakes import FakeEvaluator, FakeProposer
from gpo.trajectory import Candidate

NUM_STEPS, NUM_CANDIDATES = 3, 2


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    from ray import cloudpickle

    # The actors cannot import a test module; what stands in it travels whole.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]
    with ray_session("local", cpus_needed=4):
        yield


@dataclass(frozen=True)
class JournaledEvaluator:
    """Judges by length, and writes down every prompt it is asked about; ``before`` may do something first."""

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
    gpo = GPO(
        retriever=RecencyRetriever(),
        reflector=NoReflection(),
        summarizer=NoSummary(),
        schedule=CosineSchedule(initial=9, final=3, num_steps=NUM_STEPS),
        proposer=FakeProposer(_rewritten),
        evaluator=evaluator,
        acceptance=BestOfStep(),
        num_steps=NUM_STEPS,
        num_candidates=NUM_CANDIDATES,
        num_neighbours=2,
        train=(),
        batches=TrainBatches(1, 1, seed),
        num_exemplars=0,
        seed=seed,
    )
    return Search(SearchKey(task, seed), Prompt("Think."), gpo)


async def _last_updates(
    searches: Sequence[Search], folder: Path, *, restarts: int = 2, size: int = 8
) -> dict[SearchKey, Update]:
    supervisor = Supervisor(searches, CheckpointStore(Folder(str(folder))), Placement(size, 0.1, restarts))
    last = {update.key: update async for update in supervisor.run()}
    assert {update.phase for update in last.values()} == {Phase.DONE}
    return last


def _die_once(journal: Path, prompt: Prompt, split: Split) -> None:
    """End the process at the first candidate of the third step."""
    died = journal.with_name("died")
    if len(prompt.words) == 4 and not died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def _die(journal: Path, prompt: Prompt, split: Split) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_in_every_step(journal: Path, prompt: Prompt, split: Split) -> None:
    """End the process once for each length of prompt, which grows by a word with every step."""
    died = journal.with_name(f"died-{split}-{len(prompt.words)}")
    if not died.exists():
        died.touch()
        with journal.with_name("deaths").open("a") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)


def _out_of_reach(journal: Path, prompt: Prompt, split: Split) -> None:
    """Twice for each prompt."""
    times = journal.with_name(f"asked-{split}-{prompt.id}")
    with times.open("a") as file:
        file.write("x")
    if len(times.read_text()) <= 2:
        raise OutOfReach(Part.LIMITER, "gone")


def _always_out_of_reach(journal: Path, prompt: Prompt, split: Split) -> None:
    raise OutOfReach(Part.EVALUATOR, "gone")


def _no_space(journal: Path, prompt: Prompt, split: Split) -> None:
    raise StorageError("no space left")


def _fail(journal: Path, prompt: Prompt, split: Split) -> None:
    if len(prompt.words) == 3:
        raise RuntimeError("a fault of ours")


def _refuse(reason: RefusalReason) -> Callable[[Path, Prompt, Split], None]:
    def refuse(journal: Path, prompt: Prompt, split: Split) -> None:
        raise ModelRefused("HTTP 401: no", reason, "the-model", "http://there/v1")

    return refuse


def _pid(journal: Path, prompt: Prompt, split: Split) -> None:
    with journal.with_name("pids").open("a", encoding="utf-8") as file:
        file.write(f"{journal.name} {os.getpid()}\n")


@pytest.mark.parametrize(("size", "expected"), [(1, 5), (2, 3), (3, 2), (4, 2), (8, 1)])
def test_shards_are_few_and_filled_alike(size: int, expected: int, tmp_path: Path) -> None:
    evaluator = JournaledEvaluator(tmp_path / "journal")
    searches = [_search(evaluator, task, seed) for task, seed in (("b", 1), ("a", 0), ("b", 0), ("a", 2), ("a", 1))]
    groups = shards(searches, size)
    assert len(groups) == expected
    assert sorted(search.key for group in groups for search in group) == sorted(search.key for search in searches)
    assert all(len(group) <= size for group in groups)
    assert max(map(len, groups)) - min(map(len, groups)) <= 1
    assert [search.key for group in groups for search in group] == sorted(search.key for search in searches)


@pytest.mark.usefixtures("cluster")
async def test_every_search_comes_to_its_end_in_the_actor_of_its_shard(tmp_path: Path) -> None:
    searches = [
        _search(JournaledEvaluator(tmp_path / f"{task}-{seed}", _pid), task, seed)
        for task in ("a", "b")
        for seed in (0, 1, 2)
    ]
    last = await _last_updates(searches, tmp_path / "checkpoints", size=2)
    assert last.keys() == {search.key for search in searches}
    store = CheckpointStore(Folder(str(tmp_path / "checkpoints")))
    for key, update in last.items():
        assert update.error is None
        assert update.checkpoint is not None
        assert len(update.checkpoint.trajectory.steps) == NUM_STEPS
        assert store.load(key) == update.checkpoint
    lines = (tmp_path / "pids").read_text(encoding="utf-8").splitlines()
    homes = {name: process for name, _, process in (line.partition(" ") for line in lines)}
    assert list(Counter(homes.values()).values()) == [2, 2, 2]
    assert str(os.getpid()) not in homes.values()
    assert homes["a-0"] == homes["a-1"] != homes["a-2"] == homes["b-0"]


@pytest.mark.usefixtures("cluster")
async def test_searches_whose_actor_is_killed_go_on_from_their_checkpoints(tmp_path: Path) -> None:
    async def outcome(run: str, before: Callable[[Path, Prompt, Split], None] | None) -> dict[SearchKey, Update]:
        (tmp_path / run).mkdir()
        killed = _search(JournaledEvaluator(tmp_path / run / "killed", before), seed=0)
        beside = _search(JournaledEvaluator(tmp_path / run / "beside"), seed=1)
        return await _last_updates([killed, beside], tmp_path / run / "checkpoints")

    undisturbed = await outcome("calm", None)
    assert await outcome("killed", _die_once) == undisturbed
    assert (tmp_path / "killed" / "died").exists()
    journals = [(tmp_path / run / "killed").read_text(encoding="utf-8") for run in ("calm", "killed")]
    assert journals[0] == journals[1]


@pytest.mark.usefixtures("cluster")
async def test_a_search_whose_actor_dies_too_often_is_lost_alone(tmp_path: Path) -> None:
    doomed = _search(JournaledEvaluator(tmp_path / "doomed", _die), "doomed")
    sound = _search(JournaledEvaluator(tmp_path / "sound"), "sound")
    last = await _last_updates([doomed, sound], tmp_path / "checkpoints", restarts=1, size=1)
    assert last[sound.key].error is None
    error = last[doomed.key].error
    assert error is not None
    assert "TrajectoryLost" in error
    assert "its actor died 2 times" in error
    assert "cluster.actor_restarts" in error


@pytest.mark.usefixtures("cluster")
async def test_a_search_that_kills_its_actor_does_not_take_the_others_along(tmp_path: Path) -> None:
    # All in one actor, in which none can get on while the one is among them.
    poison = _search(JournaledEvaluator(tmp_path / "poison", _die), "poison")
    sound = [_search(JournaledEvaluator(tmp_path / f"sound-{seed}", takes_s=0.5), "sound", seed) for seed in (0, 1)]
    last = await _last_updates([poison, *sound], tmp_path / "checkpoints", restarts=1)
    assert [last[search.key].error for search in sound] == [None, None]
    error = last[poison.key].error
    assert error is not None
    assert error.startswith("TrajectoryLost: trajectory poison/0: its actor died 2 times")


@pytest.mark.usefixtures("cluster")
async def test_an_actor_that_dies_in_every_step_is_not_too_much_for_a_search_that_gets_on(tmp_path: Path) -> None:
    search = _search(JournaledEvaluator(tmp_path / "journal", _die_in_every_step))
    (last,) = (await _last_updates([search], tmp_path / "checkpoints", restarts=2)).values()
    assert last.error is None
    assert (tmp_path / "deaths").read_text().count("x") > 4


@pytest.mark.usefixtures("cluster")
async def test_a_search_that_does_not_reach_a_part_is_asked_for_again_so_often(tmp_path: Path) -> None:
    shaken = _search(JournaledEvaluator(tmp_path / "shaken", _out_of_reach), "shaken")
    lost = _search(JournaledEvaluator(tmp_path / "lost", _always_out_of_reach), "lost")
    supervisor = Supervisor(
        [shaken, lost],
        CheckpointStore(Folder(str(tmp_path / "checkpoints"))),
        Placement(8, 0.1, 0),
        budgets=Budgets(crashes=0, evaluator=1, limiter=2),
    )
    last = {update.key: update async for update in supervisor.run()}
    assert last[shaken.key].error is None
    error = last[lost.key].error
    assert error is not None
    assert error.startswith("TrajectoryLost: trajectory lost/0: the evaluator could not be reached 2 times")
    assert supervisor.faults[Fault.EVALUATOR] == 2
    assert supervisor.faults[Fault.LIMITER] >= 4


@pytest.mark.usefixtures("cluster")
async def test_what_cannot_be_saved_ends_all_searches(tmp_path: Path) -> None:
    full = _search(JournaledEvaluator(tmp_path / "full", _no_space), seed=0)
    sound = _search(JournaledEvaluator(tmp_path / "sound"), seed=1)
    with pytest.raises(StorageError, match="no space left"):
        await _last_updates([full, sound], tmp_path / "checkpoints")


@pytest.mark.usefixtures("cluster")
async def test_an_exception_in_a_search_ends_it_alone(tmp_path: Path) -> None:
    # In one actor, so that they could be in each other's way.
    failing = _search(JournaledEvaluator(tmp_path / "failing", _fail), seed=0)
    sound = _search(JournaledEvaluator(tmp_path / "sound"), seed=1)
    last = await _last_updates([failing, sound], tmp_path / "checkpoints")
    assert last[failing.key].error == "RuntimeError: a fault of ours"
    assert last[sound.key].error is None
    saved = CheckpointStore(Folder(str(tmp_path / "checkpoints"))).load(failing.key)
    assert saved is not None
    assert len(saved.trajectory.steps) == 1


@pytest.mark.usefixtures("cluster")
async def test_a_request_that_is_refused_ends_its_search_alone(tmp_path: Path) -> None:
    refused = _search(JournaledEvaluator(tmp_path / "refused", _refuse(RefusalReason.REQUEST)), seed=0)
    sound = _search(JournaledEvaluator(tmp_path / "sound"), seed=1)
    last = await _last_updates([refused, sound], tmp_path / "checkpoints")
    assert last[refused.key].error == "ModelRefused: HTTP 401: no"
    assert last[sound.key].error is None


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("reason", [RefusalReason.KEY, RefusalReason.MODEL])
async def test_a_refused_key_or_model_ends_all_searches(reason: RefusalReason, tmp_path: Path) -> None:
    refused = _search(JournaledEvaluator(tmp_path / "refused", _refuse(reason)), seed=0)
    sound = _search(JournaledEvaluator(tmp_path / "sound"), seed=1)
    with pytest.raises(ModelRefused) as caught:
        await _last_updates([refused, sound], tmp_path / "checkpoints")
    assert (caught.value.reason, caught.value.model) == (reason, "the-model")
    assert caught.value.base_url == "http://there/v1"


@pytest.mark.usefixtures("cluster")
async def test_actors_that_are_given_back_carry_on_other_searches(tmp_path: Path) -> None:
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
    # One that is given up in the middle leaves nothing behind that goes on.
    slow = tmp_path / "slow-journal"
    slow.touch()
    await run("slow", _search(JournaledEvaluator(slow, takes_s=0.3), "slow"), give_up=True)
    asked = slow.read_text(encoding="utf-8")
    await completes("after")
    assert pids() == before
    await asyncio.sleep(1.0)
    assert slow.read_text(encoding="utf-8") == asked
    # One that died is not given back, one that was started in its place is.
    dying = _search(JournaledEvaluator(tmp_path / "dying-journal", _die_once), "dying")
    assert (await run("dying", dying))[dying.key].error is None
    assert len(set(pids()) & set(before)) == 1
    assert len(pids()) == 2
    for actor in actors:
        ray.kill(actor)
