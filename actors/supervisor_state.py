"""The supervisor's decisions as a state machine that a test can step by hand.

``begin`` returns the first state, and ``step`` maps a state and an event to the next state and to actions. Both are
pure: they import no Ray, await nothing and read no clock. ``actors.supervisor`` executes the actions and creates the
events.

At any time, an actor runs a trajectory (after ``RunTrajectory``), it waits (after ``Wait``), or it is done. Each
``RunTrajectory`` leads to ``Reported`` events, the last of which is ``Phase.DONE``, unless a ``Faulted`` or ``Failed``
interrupts them. Each ``Wait`` leads to one ``WaitOver``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from actors.failure_policy import Fault, Remedy, RetryLimits, ends_run, lost, remedy_for
from actors.search import Phase, SearchKey, Update
from gpo.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class Reported:
    """A trajectory sent an update."""

    update: Update

    @property
    def key(self) -> SearchKey:
        """The trajectory that the event is about."""
        return self.update.key


@dataclass(frozen=True, slots=True)
class Faulted:
    """An outside fault interrupted a trajectory.

    Attributes:
        message: what Ray or the error said.
        saved: its last checkpoint. An actor that dies loses its last updates, but not its checkpoints.
    """

    key: SearchKey
    fault: Fault
    message: str
    saved: Checkpoint | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """A trajectory raised an error."""

    key: SearchKey
    error: BaseException


@dataclass(frozen=True, slots=True)
class WaitOver:
    """The time of a ``Wait`` has passed."""

    key: SearchKey


Event = Reported | Faulted | Failed | WaitOver


@dataclass(frozen=True, slots=True)
class StartActor:
    """Start the actor of a new slot, for these trajectories."""

    slot: int
    keys: Sequence[SearchKey]
    is_isolated: bool = False


@dataclass(frozen=True, slots=True)
class ReplaceActor:
    """End the slot's actor and start another."""

    slot: int


@dataclass(frozen=True, slots=True)
class EndActor:
    """End the slot's actor; no trajectory is left in it."""

    slot: int


@dataclass(frozen=True, slots=True)
class RunTrajectory:
    """Ask the slot's actor to run the trajectory from its last checkpoint to its end."""

    key: SearchKey
    slot: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Send ``WaitOver`` after so many seconds."""

    key: SearchKey
    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """Yield the update to the caller of the supervisor."""

    update: Update


@dataclass(frozen=True, slots=True)
class Warn:
    """Log a warning about a trajectory."""

    message: str


@dataclass(frozen=True, slots=True)
class End:
    """End the supervisor, with an error unless all trajectories are done."""

    error: BaseException | None = None


Action = StartActor | ReplaceActor | EndActor | RunTrajectory | Wait | Report | Warn | End


@dataclass(frozen=True, slots=True)
class TrajectoryState:
    """What the supervisor knows of one trajectory.

    Attributes:
        slot: the slot whose actor runs it.
        generation: the actor, of those that the slot has had, that was asked to run it last.
        is_alone: whether its slot was started for it alone.
        faults: how often each fault has happened since it last made progress.
        progress: how far its last checkpoint is; see ``_progress``.
        restarts_actor: whether the actor is replaced after the current wait.
    """

    slot: int
    generation: int = 0
    is_alone: bool = False
    faults: Mapping[Fault, int] = field(default_factory=dict[Fault, int])
    progress: tuple[int, ...] = ()
    restarts_actor: bool = False
    is_done: bool = False


@dataclass(frozen=True, slots=True)
class SlotState:
    """What the supervisor knows of one actor slot.

    Attributes:
        keys: the trajectories that were not moved out of it.
        generation: how many actors it had before the current one.
    """

    keys: frozenset[SearchKey]
    generation: int = 0


@dataclass(frozen=True, slots=True)
class SupervisorState:
    """All that the decisions depend on.

    Attributes:
        faults: how often each fault has happened so far, counted for each trajectory that it interrupted.
    """

    retry_limits: RetryLimits
    slots: tuple[SlotState, ...]
    trajectories: Mapping[SearchKey, TrajectoryState]
    faults: Mapping[Fault, int] = field(default_factory=dict[Fault, int])

    @property
    def is_done(self) -> bool:
        """Whether every trajectory is done."""
        return all(trajectory.is_done for trajectory in self.trajectories.values())


Transition = tuple[SupervisorState, list[Action]]


def begin(shards: Sequence[Sequence[SearchKey]], retry_limits: RetryLimits) -> Transition:
    """Start one actor for each shard, and run all trajectories."""
    state = SupervisorState(
        retry_limits,
        tuple(SlotState(frozenset(shard)) for shard in shards),
        {key: TrajectoryState(slot, is_alone=len(shard) == 1) for slot, shard in enumerate(shards) for key in shard},
    )
    if state.is_done:
        return state, [End()]
    starts = [StartActor(slot, shard) for slot, shard in enumerate(shards)]
    return state, [*starts, *(RunTrajectory(key, one.slot) for key, one in state.trajectories.items())]


def step(state: SupervisorState, event: Event) -> Transition:
    """The state after an event, and what to do about the event, in order."""
    if state.trajectories[event.key].is_done:
        return state, []  # for example, its actor died after the last update
    match event:
        case Reported(update):
            state = _with_progress(state, event.key, update.checkpoint)
            return _finished(state, update) if update.phase is Phase.DONE else (state, [Report(update)])
        case Failed(key, error):
            return (state, [End(error)]) if ends_run(error) else _given_up(state, key, error)
        case Faulted():
            return _on_fault(state, event)
        case WaitOver(key):
            return _on_wait_over(state, key)


def _on_fault(state: SupervisorState, event: Faulted) -> Transition:
    key, fault = event.key, event.fault
    state = replace(state, faults={**state.faults, fault: state.faults.get(fault, 0) + 1})
    state = _with_progress(state, key, event.saved)
    trajectory = state.trajectories[key]
    times = trajectory.faults.get(fault, 0) + 1
    remedy, wait_s = remedy_for(fault, times, state.retry_limits, is_alone=trajectory.is_alone)
    trajectory = replace(
        trajectory, faults={**trajectory.faults, fault: times}, restarts_actor=remedy is Remedy.RESTART
    )
    state, actions = _with_trajectory(state, key, trajectory), list[Action]()
    match remedy:
        case Remedy.ASK_AGAIN | Remedy.RESTART:
            actions = [Wait(key, wait_s)]
        case Remedy.ISOLATE:
            state, actions = _isolated(state, key)
        case Remedy.GIVE_UP:
            state, actions = _given_up(state, key, lost(str(key), fault, times))
    when = f" in {wait_s:g} s" if wait_s else ""
    return state, [Warn(f"trajectory {key}: {fault}; {remedy}{when}: {event.message}"), *actions]


def _on_wait_over(state: SupervisorState, key: SearchKey) -> Transition:
    trajectory = state.trajectories[key]
    slot, actions = state.slots[trajectory.slot], list[Action]()
    # A trajectory that shares the actor may have replaced it already.
    if trajectory.restarts_actor and trajectory.generation == slot.generation:
        slot = replace(slot, generation=slot.generation + 1)
        state = _with_slot(state, trajectory.slot, slot)
        actions.append(ReplaceActor(trajectory.slot))
    trajectory = replace(trajectory, generation=slot.generation, restarts_actor=False)
    return _with_trajectory(state, key, trajectory), [*actions, RunTrajectory(key, trajectory.slot)]


def _isolated(state: SupervisorState, key: SearchKey) -> Transition:
    """Move a trajectory to a separate actor, with all retries left."""
    trajectory = state.trajectories[key]
    left = replace(state.slots[trajectory.slot], keys=state.slots[trajectory.slot].keys - {key})
    state, new = _with_slot(state, trajectory.slot, left), len(state.slots)
    state = replace(state, slots=(*state.slots, SlotState(frozenset({key}))))
    state = _with_trajectory(state, key, TrajectoryState(new, is_alone=True, progress=trajectory.progress))
    ending: list[Action] = [] if left.keys else [EndActor(trajectory.slot)]
    return state, [*ending, StartActor(new, [key], is_isolated=True), RunTrajectory(key, new)]


def _given_up(state: SupervisorState, key: SearchKey, error: BaseException) -> Transition:
    return _finished(state, Update(key, Phase.DONE, error=f"{type(error).__name__}: {error}"))


def _finished(state: SupervisorState, update: Update) -> Transition:
    state = _with_trajectory(state, update.key, replace(state.trajectories[update.key], is_done=True))
    return state, [Report(update), End()] if state.is_done else [Report(update)]


def _with_progress(state: SupervisorState, key: SearchKey, checkpoint: Checkpoint | None) -> SupervisorState:
    """Forget the faults of a trajectory that made progress. Repeating old steps after a restart is no progress."""
    trajectory = state.trajectories[key]
    if checkpoint is None or (progress := _progress(checkpoint)) <= trajectory.progress:
        return state
    return _with_trajectory(state, key, replace(trajectory, progress=progress, faults={}))


def _with_trajectory(state: SupervisorState, key: SearchKey, trajectory: TrajectoryState) -> SupervisorState:
    return replace(state, trajectories={**state.trajectories, key: trajectory})


def _with_slot(state: SupervisorState, index: int, slot: SlotState) -> SupervisorState:
    return replace(state, slots=(*state.slots[:index], slot, *state.slots[index + 1 :]))


def _progress(checkpoint: Checkpoint) -> tuple[int, ...]:
    """Rises with everything that a search pays for and saves."""
    trajectory = checkpoint.trajectory
    return len(trajectory.steps), int(trajectory.proposal is not None), len(checkpoint.test)
