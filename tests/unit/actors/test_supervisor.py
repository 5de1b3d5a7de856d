"""The supervisor: its decisions, stepped by hand, and their execution with actors that exist in this process only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any
from uuid import uuid4

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayActorError, RayError, RayTaskError

from actors import supervisor as supervisor_module
from actors.checkpoints import CheckpointStore
from actors.failure_policy import Fault, RetryLimits
from actors.folder import Folder
from actors.search import Phase, Search, SearchKey, Update
from actors.slots import Placement, shards
from actors.supervisor import Supervisor, fault_in_actor, raised_by
from actors.supervisor_state import (
    Action,
    End,
    EndActor,
    Event,
    Failed,
    Faulted,
    ReplaceActor,
    Report,
    Reported,
    RunTrajectory,
    StartActor,
    Wait,
    WaitOver,
    Warn,
    begin,
    step,
)
from gpo.checkpoint import Checkpoint
from gpo.errors import BudgetExhausted, EvaluationError, ModelRefused, OutOfReach, Part, RefusalReason, StorageError
from gpo.testing.samples import TRAJECTORIES

A, B, C = (SearchKey("desk", seed) for seed in range(3))
RETRY_LIMITS = RetryLimits(crashes=1, node_losses=3, no_contacts=1, evaluator=1, limiter=2)
BEGUN = Checkpoint(TRAJECTORIES["only the initial prompt"], test={})
ONE_STEP = Checkpoint(TRAJECTORIES["one step"], test={})
MORE_STEPS = Checkpoint(TRAJECTORIES["several steps, with ties"], test={})


class Stepped:
    """A state machine, and the actions that each event leads to; warnings are kept separately."""

    def __init__(self, *groups: Sequence[SearchKey]) -> None:
        self.warnings: list[str] = []
        self.state, self.begun = begin(groups, RETRY_LIMITS)

    def after(self, event: Event) -> list[Action]:
        self.state, actions = step(self.state, event)
        self.warnings += [action.message for action in actions if isinstance(action, Warn)]
        return [action for action in actions if not isinstance(action, Warn)]

    def faulted(self, key: SearchKey, fault: Fault = Fault.CRASH, saved: Checkpoint | None = None) -> list[Action]:
        return self.after(Faulted(key, fault, "what Ray says", saved))

    def restarted(self, *keys: SearchKey) -> list[Action]:
        """The actions of a crash of the actor that these share, and of the waits."""
        for key in keys:
            assert [type(action) for action in self.faulted(key)] == [Wait]
        return [action for key in keys for action in self.after(WaitOver(key))]

    def done(self, key: SearchKey, checkpoint: Checkpoint = ONE_STEP) -> list[Action]:
        return self.after(Reported(Update(key, Phase.DONE, checkpoint=checkpoint)))


def error_of(actions: Sequence[Action]) -> str | None:
    """The error in the report that a trajectory is done."""
    (update,) = [action.update for action in actions if isinstance(action, Report)]
    assert update.phase is Phase.DONE
    return update.error


def test_one_actor_starts_for_each_group_and_all_trajectories_run() -> None:
    assert Stepped([A, B], [C]).begun == [
        StartActor(0, [A, B]),
        StartActor(1, [C]),
        *(RunTrajectory(key, slot) for key, slot in ((A, 0), (B, 0), (C, 1))),
    ]
    assert Stepped().begun == [End()]


def test_updates_are_reported_until_every_trajectory_is_done() -> None:
    run = Stepped([A, B])
    update = Update(A, Phase.PROPOSING, 1, 2)
    assert run.after(Reported(update)) == [Report(update)]
    assert run.done(A) == [Report(Update(A, Phase.DONE, checkpoint=ONE_STEP))]
    assert run.done(B)[1:] == [End()]


def test_trajectories_that_share_a_crashed_actor_replace_it_once() -> None:
    run = Stepped([A, B])
    assert run.faulted(A) == [Wait(A, 0.0)]
    assert run.faulted(B) == [Wait(B, 0.0)]
    assert run.after(WaitOver(A)) == [ReplaceActor(0), RunTrajectory(A, 0)]
    assert run.after(WaitOver(B)) == [RunTrajectory(B, 0)]
    assert run.warnings[0] == "trajectory desk/0: its actor died; restarting its actor: what Ray says"


def test_a_crash_that_is_noticed_late_does_not_replace_the_new_actor() -> None:
    run = Stepped([A, B])
    assert run.restarted(A) == [ReplaceActor(0), RunTrajectory(A, 0)]
    assert run.restarted(B) == [RunTrajectory(B, 0)]


def test_an_actor_that_replaced_a_crashed_one_is_replaced_when_it_crashes_too() -> None:
    run = Stepped([A, B])
    run.restarted(A, B)
    assert run.faulted(A, Fault.NODE_LOSS) == [Wait(A, 0.0)]
    assert run.after(WaitOver(A)) == [ReplaceActor(0), RunTrajectory(A, 0)]


@pytest.mark.parametrize("fault", [Fault.NO_CONTACT, Fault.EVALUATOR, Fault.LIMITER])
def test_an_unreachable_part_is_retried_without_a_new_actor(fault: Fault) -> None:
    run = Stepped([A, B])
    assert run.faulted(A, fault) == [Wait(A, 1.0)]
    assert run.after(WaitOver(A)) == [RunTrajectory(A, 0)]


def test_trajectories_of_an_actor_that_crashes_too_often_are_isolated() -> None:
    run = Stepped([A, B, C])
    run.restarted(A, B, C)
    assert run.faulted(A) == [StartActor(1, [A], is_isolated=True), RunTrajectory(A, 1)]
    assert run.faulted(B) == [StartActor(2, [B], is_isolated=True), RunTrajectory(B, 2)]
    # The last one to leave ends the shared actor, which another fault may have left alive.
    assert run.faulted(C) == [EndActor(0), StartActor(3, [C], is_isolated=True), RunTrajectory(C, 3)]
    assert "moving it to a separate actor" in run.warnings[-1]


def test_an_isolated_trajectory_has_all_retries_and_is_then_lost_alone() -> None:
    run = Stepped([A, B])
    run.after(Reported(Update(A, Phase.PROPOSING, checkpoint=ONE_STEP)))
    run.restarted(A, B)
    run.faulted(A)
    run.faulted(B)
    assert run.restarted(A) == [ReplaceActor(1), RunTrajectory(A, 1)]
    run.after(Reported(Update(A, Phase.PROPOSING, checkpoint=ONE_STEP)))  # what it resumed from, which is no progress
    assert error_of(run.faulted(A)) == (
        "TrajectoryLost: trajectory desk/0: its actor died 2 times without progress in between; resume the run to "
        "continue from the last checkpoint, or raise cluster.actor_restarts"
    )
    assert run.done(B)[1:] == [End()]


def test_a_trajectory_that_made_progress_is_not_isolated_with_the_suspect() -> None:
    run = Stepped([A, B])
    run.restarted(A, B)
    assert isinstance(run.faulted(A)[0], StartActor)
    assert run.faulted(B, saved=ONE_STEP) == [Wait(B, 0.0)]
    assert run.after(WaitOver(B)) == [ReplaceActor(0), RunTrajectory(B, 0)]


def test_a_trajectory_without_an_actor_to_share_is_lost_without_isolation() -> None:
    run = Stepped([A], [B])
    run.restarted(A)
    assert "its actor died 2 times" in (error_of(run.faulted(A)) or "")
    assert run.done(B)[1:] == [End()]


@pytest.mark.parametrize("fault", [Fault.EVALUATOR, Fault.LIMITER])
def test_a_trajectory_is_lost_when_a_part_stays_out_of_reach(fault: Fault) -> None:
    run = Stepped([A, B])
    for _ in range(RETRY_LIMITS.of(fault)):
        run.faulted(A, fault)
        assert run.after(WaitOver(A)) == [RunTrajectory(A, 0)]
    assert f"{fault} {RETRY_LIMITS.of(fault) + 1} times" in (error_of(run.faulted(A, fault)) or "")


def test_each_kind_of_fault_has_its_retry_limit() -> None:
    run = Stepped([A])
    kinds = [Fault.NODE_LOSS, Fault.CRASH, Fault.NODE_LOSS, Fault.EVALUATOR, Fault.LIMITER, Fault.NO_CONTACT]
    for fault in kinds:
        assert [type(action) for action in run.faulted(A, fault)] == [Wait]
        run.after(WaitOver(A))
    assert run.state.faults == {fault: kinds.count(fault) for fault in Fault}


@pytest.mark.parametrize("is_reported", [True, False])
def test_progress_restores_the_retries_whether_it_was_reported_or_only_saved(is_reported: bool) -> None:
    run = Stepped([A])
    for checkpoint in (BEGUN, ONE_STEP, MORE_STEPS):
        if is_reported:
            run.after(Reported(Update(A, Phase.PROPOSING, checkpoint=checkpoint)))
        assert run.faulted(A, saved=checkpoint) == [Wait(A, 0.0)]
        assert run.after(WaitOver(A)) == [ReplaceActor(0), RunTrajectory(A, 0)]
        # The restarted search first reports the checkpoint that it continues from, which is no progress.
        run.after(Reported(Update(A, Phase.PROPOSING, checkpoint=checkpoint)))
    assert error_of(run.faulted(A, saved=MORE_STEPS)) is not None


@pytest.mark.parametrize(
    "error", [RuntimeError("a defect"), EvaluationError("unscored"), ModelRefused("HTTP 400", RefusalReason.REQUEST)]
)
def test_an_error_of_one_search_ends_it_alone(error: Exception) -> None:
    run = Stepped([A, B])
    assert error_of(run.after(Failed(A, error))) == f"{type(error).__name__}: {error}"
    assert run.done(B)[1:] == [End()]


@pytest.mark.parametrize(
    "error",
    [
        StorageError("no space left"),
        BudgetExhausted("budget.calls"),
        ModelRefused("HTTP 401: no", RefusalReason.KEY),
        ModelRefused("HTTP 404: no", RefusalReason.MODEL),
    ],
)
def test_an_error_that_all_would_meet_ends_the_run(error: Exception) -> None:
    assert Stepped([A, B]).after(Failed(A, error)) == [End(error)]


def test_a_fault_after_the_last_update_of_a_trajectory_changes_nothing() -> None:
    run = Stepped([A, B])
    run.done(A)
    assert run.faulted(A) == run.done(A) == run.after(Failed(A, StorageError("gone"))) == []
    assert run.state.faults == {}


@pytest.mark.parametrize(("size", "expected"), [(1, 5), (2, 3), (3, 2), (4, 2), (8, 1)])
def test_searches_are_split_into_few_groups_of_similar_size(size: int, expected: int) -> None:
    keys = [SearchKey(*key) for key in (("b", 1), ("a", 0), ("b", 0), ("a", 2), ("a", 1))]
    groups = shards([_search(key) for key in keys], size)
    assert len(groups) == expected
    assert all(len(group) <= size for group in groups)
    assert max(map(len, groups)) - min(map(len, groups)) <= 1
    assert [search.key for group in groups for search in group] == sorted(keys)


def _search(key: SearchKey) -> Search:
    nothing: Any = None
    return Search(key, nothing, nothing)


def died(message: str) -> ActorDiedError:
    error = ActorDiedError()
    error.error_msg = message
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (died("The actor is dead because its node has died. Node Id: 1"), Fault.NODE_LOSS),
        (died("The node was terminated expectedly"), Fault.NODE_LOSS),
        (died("The actor died unexpectedly"), Fault.CRASH),
        (RayActorError(error_msg="preempted", preempted=True), Fault.NODE_LOSS),
        (ActorUnavailableError("it does not answer", None), Fault.NO_CONTACT),
        (RayError("an object was lost"), Fault.NO_CONTACT),
    ],
)
def test_ray_s_error_says_what_happened_to_the_actor(error: RayError, expected: Fault) -> None:
    assert fault_in_actor(error) is expected


def _raised(error: Exception) -> RayTaskError:
    return RayTaskError("run", "traceback", error)


def test_an_error_of_a_replica_is_found_below_that_of_the_actor() -> None:
    error = OutOfReach(Part.LIMITER, "gone")
    assert raised_by(_raised(_raised(error))) is error


class FakeSlots:
    """Actors of this process. Each call to run a trajectory does what the next entry of its script says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, scripts: dict[SearchKey, list[Any]]) -> None:
        self.scripts, self.log = scripts, list[str]()
        monkeypatch.setattr(supervisor_module, "ActorSlot", self.start)

    def start(self, searches: Sequence[Search], start: Callable[[], Any], actor: Any = None, **_: Any) -> FakeSlot:
        names = ",".join(str(search.key.seed) for search in searches)
        self.log.append(f"{start.__name__} {names}{' ready' if actor else ''}")
        return FakeSlot(self, names)


class FakeSlot:
    is_isolated = False

    def __init__(self, slots: FakeSlots, names: str) -> None:
        self._slots, self._names = slots, names
        self.actor = self.stop = self
        self.remote = self._stopped

    async def run(self, key: SearchKey, store: CheckpointStore) -> AsyncIterator[Update]:
        for item in self._slots.scripts[key].pop(0):
            if isinstance(item, Exception):
                raise item
            if item is None:
                await asyncio.sleep(3600)
            if isinstance(item, Checkpoint):
                store.save(key, item)
            else:
                yield item

    async def _stopped(self, ends: bool) -> bool:
        self._slots.log.append(f"stop {self._names} {ends}")
        return True

    def replace(self) -> None:
        self._slots.log.append(f"replace {self._names}")

    def end(self) -> None:
        self._slots.log.append(f"end {self._names}")


class Pool:
    takes_back = True

    def __init__(self) -> None:
        self.returned: list[Any] = []

    def give_back(self, actor: Any) -> None:
        self.returned.append(actor)


def _supervisor(*keys: SearchKey, actors: Sequence[Any] = (), pool: Pool | None = None) -> Supervisor:
    store = CheckpointStore(Folder(f"memory://{uuid4().hex}"))
    retry_limits = RetryLimits(crashes=1, evaluator=1)
    return Supervisor([_search(key) for key in keys], store, Placement(1, 0.1, 1), actors, retry_limits, pool)


async def _received(supervisor: Supervisor, received: list[Update]) -> None:
    async for update in supervisor.run():
        received.append(update)  # noqa: PERF401  # an error must not lose them


DONE = {key: Update(key, Phase.DONE) for key in (A, B)}


async def test_faults_and_updates_are_turned_into_actions_on_actors(monkeypatch: pytest.MonkeyPatch) -> None:
    update = Update(A, Phase.PROPOSING)
    away = _raised(OutOfReach(Part.EVALUATOR, "gone"))
    slots = FakeSlots(
        monkeypatch,
        {A: [[update, ActorDiedError()], [away], [DONE[A]]], B: [[_raised(ValueError("a defect"))]]},
    )
    supervisor = _supervisor(A, B, actors=["ready"])
    updates = [update async for update in supervisor.run()]
    assert updates == [update, Update(B, Phase.DONE, error="ValueError: a defect"), DONE[A]]
    assert supervisor.faults == {Fault.CRASH: 1, Fault.EVALUATOR: 1}
    assert slots.log[:3] == ["start_actor 0 ready", "start_actor 1", "replace 0"]
    assert sorted(slots.log[3:]) == ["end 0", "end 1", "stop 0 True", "stop 1 True"]


async def test_an_error_that_ends_the_run_is_raised_after_the_updates_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error, update = StorageError("no space left"), Update(A, Phase.PROPOSING)
    slots = FakeSlots(monkeypatch, {A: [[update, _raised(error)]], B: [[None]]})
    received: list[Update] = []
    with pytest.raises(StorageError, match="no space left"):
        await _received(_supervisor(A, B), received)
    assert received == [update]
    assert {"end 0", "end 1"} <= set(slots.log)


@pytest.mark.parametrize(
    ("error", "fault"),
    [(ActorDiedError(), Fault.CRASH), (_raised(OutOfReach(Part.EVALUATOR, "gone")), Fault.EVALUATOR)],
)
async def test_progress_that_an_actor_saved_and_did_not_report_counts(
    error: RayError, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.failure_policy._LONGEST_WAIT_S", 0.0)
    FakeSlots(monkeypatch, {A: [[error], [BEGUN, error], [ONE_STEP, error], [MORE_STEPS, error], [DONE[A]]]})
    supervisor = _supervisor(A)
    assert [update async for update in supervisor.run()] == [DONE[A]]
    assert supervisor.faults == {fault: 4}


async def test_a_defect_of_the_supervisor_ends_one_trajectory(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeSlots(monkeypatch, {A: [[TypeError("a defect")]], B: [[DONE[B]]]})
    errors = {update.key: update.error async for update in _supervisor(A, B).run()}
    assert errors == {A: "TypeError: a defect", B: None}


async def test_idle_actors_are_given_back_to_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    slots = FakeSlots(monkeypatch, {A: [[DONE[A]]], B: [[DONE[B]]]})
    pool = Pool()
    assert len([update async for update in _supervisor(A, B, pool=pool).run()]) == 2
    assert len(pool.returned) == 2
    assert {"stop 0 False", "stop 1 False"} == set(slots.log[2:])
