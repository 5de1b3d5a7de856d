"""The study behind a sweep: who runs which trial, what trials report, and what they come to.

All trials are enqueued when the study begins, and a process takes one by Optuna's own change from waiting to running,
which one process alone succeeds in. So there are never more than were asked for, whatever is killed when. Everything
here is synchronous and belongs to one thread; ``cluster.sweep.sweep`` gives it one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from cluster.config.section import first_difference, lasting
from cluster.config.sweep import WilcoxonConfig
from cluster.sweep.loading import SweepConfig
from cluster.sweep.processes import Processes
from cluster.sweep.space import Params
from cluster.sweep.storage import told_as_storage_error
from cluster.sweep.strategies import build_pruner, build_sampler
from gpo.errors import ConfigError

Outcome = Literal["complete", "pruned", "failed"]

_OWNER, _FOLDER, _VALUES, _AWAY = "process", "folder", "values", "away"
_CONFIRMING, _CONFIRMATION = "confirming", "confirmation"
_CONFIG = "config"
_ENQUEUED_WITHIN_S = 30.0
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass(frozen=True)
class Claim:
    """A trial that this process runs.

    Attributes:
        params: what the sampler proposed.
        folder: URL of the trial's folder; it holds checkpoints where another process, or an earlier sitting, began.
    """

    trial: Trial
    params: Params
    folder: str

    @property
    def number(self) -> int:
        """The trial's number, from 0."""
        return self.trial.number


class SharedStudy:
    """One study, and this process's part in it.

    Args:
        folder_of: trial number → URL of the folder for a new trial.

    Raises:
        ConfigError: the study is there, of another configuration.
        StorageError: the storage is out of reach.
    """

    def __init__(self, config: SweepConfig, storage: BaseStorage, folder_of: Callable[[int], str]) -> None:
        self._config, self._storage, self._folder_of = config, storage, folder_of
        self._section = config.section
        self._held: set[int] = set()
        with told_as_storage_error():
            self.study = self._opened()
            self.processes = Processes(self.study, self._section.lease_s)

    @property
    def objectives(self) -> tuple[str, ...]:
        """What trials are told by, in order."""
        return self._section.objectives

    # -- taking trials --------------------------------------------------------------------------------------------

    # What the storage was told may have arrived though its answer did not: each of these may be asked again.

    def claim(self) -> Claim | None:
        """The next trial that waits, now ours; ``None`` where none does."""
        with told_as_storage_error():
            for ours in self._trials(TrialState.RUNNING):
                if _owner(ours) == self.processes.me and ours.number not in self._held:
                    return self._claimed(ours)
            for waiting in self._trials(TrialState.WAITING):
                try:
                    taken = self._storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING)
                except UpdateFinishedTrialError:
                    continue
                if taken:
                    self._storage.set_trial_user_attr(waiting._trial_id, _OWNER, self.processes.me)
                    return self._claimed(waiting)
        return None

    def abandoned(self) -> list[int]:
        """The numbers of trials whose process is dead."""
        with told_as_storage_error():
            is_dead = self.processes.dead()
            return [
                trial.number for trial in self._trials(TrialState.RUNNING) if is_dead(_owner(trial), str(trial.number))
            ]

    def bid(self, number: int) -> bool:
        """Write this process's name onto a trial whose process is dead; whether it still was.

        The last one to write wins. So a bid is only good if it still stands after a while that is long against the time
        between looking and writing; then ``settled`` says so.
        """
        with told_as_storage_error():
            trial = self._trial(number)
            if trial.state is not TrialState.RUNNING:
                return False
            if _owner(trial) == self.processes.me:
                return number not in self._held
            if not self.processes.dead()(_owner(trial), str(number)):
                return False
            self._storage.set_trial_user_attr(trial._trial_id, _OWNER, self.processes.me)
        return True

    def settled(self, number: int) -> Claim | None:
        """The trial, where this process's bid stands."""
        with told_as_storage_error():
            trial = self._trial(number)
            is_ours = trial.state is TrialState.RUNNING and _owner(trial) == self.processes.me
            return self._claimed(trial) if is_ours else None

    def is_ours(self, claim: Claim) -> bool:
        """Whether the trial was not taken over by a process that thought this one dead."""
        with told_as_storage_error():
            trial = self._trial(claim.number)
        return trial.state is TrialState.RUNNING and _owner(trial) == self.processes.me

    def put_down(self, claim: Claim) -> None:
        """Nobody here works on the trial any more; if it is still ours, it can be claimed again."""
        self._held.discard(claim.number)

    def release(self) -> None:
        """Let every trial that is ours wait for whoever comes next; what is done of it is saved."""
        with told_as_storage_error():
            for trial in self._trials(TrialState.RUNNING):
                if _owner(trial) == self.processes.me:
                    self._storage.set_trial_user_attr(trial._trial_id, _OWNER, "")
                    self._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    def may_confirm(self) -> bool:
        """Whether the confirmation is nobody else's; it is this process's from then on, once ``confirms`` says so."""
        with told_as_storage_error():
            owner = self.study.user_attrs.get(_CONFIRMING)
            if owner and owner != self.processes.me and not self.processes.dead()(str(owner), _CONFIRMING):
                return False
            self.study.set_user_attr(_CONFIRMING, self.processes.me)
        return True

    def confirms(self) -> bool:
        """Whether the confirmation is this process's."""
        with told_as_storage_error():
            return bool(self.study.user_attrs.get(_CONFIRMING) == self.processes.me)

    def confirmed(self, document: Mapping[str, Any]) -> None:
        """Keep what the confirmation came to."""
        with told_as_storage_error():
            self.study.set_user_attr(_CONFIRMATION, json.dumps(document))
            self.study.set_user_attr(_CONFIRMING, "")

    @property
    def confirmation(self) -> dict[str, Any] | None:
        """What the last confirmation came to, as it stands in ``sweep.json``."""
        with told_as_storage_error():
            stored = self.study.user_attrs.get(_CONFIRMATION)
        return None if stored is None else dict(json.loads(stored))

    # -- what trials tell -----------------------------------------------------------------------------------------

    def report(self, claim: Claim, step: int, values: Sequence[float]) -> bool:
        """Tell what a population is at after a step; whether it should be given up.

        Args:
            step: updates that every trajectory has taken, from 1.
            values: best ``val`` mean of each trajectory, always in the same order.
        """
        with told_as_storage_error():
            trial = claim.trial
            known: list[list[float]] = [*trial.user_attrs.get(_VALUES, [])]
            if step > len(known):
                trial.set_user_attr(_VALUES, [*known, list(values)])
            if len(self._section.objectives) > 1:
                return False
            if step not in self._trial(claim.number).intermediate_values:
                trial.report(sum(values) / len(values), step)
            return self._should_prune(trial, step)

    def was_away(self, claim: Claim) -> bool:
        """Whether a model was out of reach for this trial in another sitting already; it is known from now on."""
        with told_as_storage_error():
            known = claim.trial.user_attrs.get(_AWAY)
            if known is None:
                claim.trial.set_user_attr(_AWAY, self.processes.me)
        return known not in (None, self.processes.me)

    def tell(self, claim: Claim, outcome: Outcome, values: Sequence[float], notes: Mapping[str, Any]) -> None:
        """Say what a trial came to.

        Args:
            values: one per objective; of a complete trial.
            notes: what else is to be kept of it.
        """
        states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        with told_as_storage_error():
            for name, note in notes.items():
                claim.trial.set_user_attr(name, note)
            told = list(values) if outcome == "complete" else None
            self.study.tell(claim.trial, told, state=states[outcome], skip_if_finished=True)

    # -- what is known --------------------------------------------------------------------------------------------

    def trials(self) -> list[FrozenTrial]:
        """Every trial, by number."""
        with told_as_storage_error():
            return self._trials()

    def is_over(self) -> bool:
        """Whether every trial has come to its end."""
        return all(trial.state in _FINISHED for trial in self.trials())

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        trials = self.study.get_trials(deepcopy=False, states=states or None)
        # Two processes that enqueue at once may enqueue too many; those are never run.
        return [trial for trial in trials if trial.number < self._section.trials]

    def _trial(self, number: int) -> FrozenTrial:
        return next(trial for trial in self._trials() if trial.number == number)

    def _claimed(self, trial: FrozenTrial) -> Claim:
        self.study.sampler = build_sampler(self._section, trial.number, conditional=self._config.space.is_conditional)
        ours = Trial(self.study, trial._trial_id)
        folder = trial.user_attrs.get(_FOLDER)
        if folder is None:
            folder = self._folder_of(trial.number)
            ours.set_user_attr(_FOLDER, folder)
        claim = Claim(ours, self._config.space.suggested(ours), folder)
        self._held.add(trial.number)
        return claim

    def _should_prune(self, trial: Trial, step: int) -> bool:
        pruner = self._section.pruning
        if not isinstance(pruner, WilcoxonConfig):
            return trial.should_prune()
        if step < pruner.min_steps:
            return False
        try:
            best = self.study.best_trial
        except ValueError:
            return False
        # The test pairs instances by their numbers: here a trajectory at a step, where Optuna has the steps' means.
        beside = optuna.create_study(direction="maximize")
        beside.add_trial(create_trial(value=best.value, intermediate_values=_instances(best)))
        ours = create_trial(state=TrialState.RUNNING, intermediate_values=_instances(self._trial(trial.number)))
        return self.study.pruner.prune(beside, ours)

    # -- beginning ------------------------------------------------------------------------------------------------

    def _opened(self) -> Study:
        config, section = self._config, self._section
        directions = [
            StudyDirection.MAXIMIZE if objective == "val" else StudyDirection.MINIMIZE
            for objective in section.objectives
        ]
        pruner = build_pruner(section, config.num_steps)
        try:
            study = optuna.create_study(
                study_name=config.study, storage=self._storage, directions=directions, pruner=pruner
            )
        except DuplicatedStudyError:
            study = optuna.load_study(study_name=config.study, storage=self._storage, pruner=pruner)
            self._require_same(study)
            self._await_enqueued(study)
        else:
            study.set_user_attr(_CONFIG, json.dumps(_essence(config)))
            study.set_metric_names(list(section.objectives))
            self._enqueue(study)
        return study

    def _enqueue(self, study: Study) -> None:
        for number in range(len(study.get_trials(deepcopy=False)), self._section.trials):
            study.enqueue_trial(self._config.space.paper if number == 0 else {})

    def _await_enqueued(self, study: Study) -> None:
        """Have as many trials as are wanted: who made the study is about to enqueue them, or died, or wanted fewer."""
        deadline = time.monotonic() + _ENQUEUED_WITHIN_S
        before = -1
        while (known := len(study.get_trials(deepcopy=False))) < self._section.trials:
            if known == before or time.monotonic() > deadline:
                self._enqueue(study)
                return
            before = known
            time.sleep(1.0)

    def _require_same(self, study: Study) -> None:
        deadline = time.monotonic() + _ENQUEUED_WITHIN_S
        while (stored := study.user_attrs.get(_CONFIG)) is None and time.monotonic() < deadline:
            time.sleep(0.1)  # made a moment ago
        if stored is None:
            raise ConfigError(
                "sweep.study", f"the study {study.study_name!r} was not made by gpo sweep", "name another study"
            )
        difference = first_difference(json.loads(stored), _essence(self._config))
        if difference is not None:
            field, old, new = difference
            raise ConfigError(
                field,
                f"the study {study.study_name!r} has {old!r:.80}, not {new!r:.80}",
                "go on with its own configuration, or name another study",
            )


def _essence(config: SweepConfig) -> dict[str, Any]:
    """What all processes of a study must agree on."""
    return {**lasting(config.base), "sweep": lasting(config.section)}


def _owner(trial: FrozenTrial) -> str | None:
    return trial.user_attrs.get(_OWNER) or None


def values_by_step(trial: FrozenTrial) -> list[list[float]]:
    """After each step, the best ``val`` mean of each trajectory."""
    return list(trial.user_attrs.get(_VALUES, []))


def _instances(trial: FrozenTrial) -> dict[int, float]:
    steps = values_by_step(trial)
    return {
        step * len(values) + index: value for step, values in enumerate(steps) for index, value in enumerate(values)
    }


def unsettled_s(lease_s: float) -> float:
    """How long a bid must stand, in seconds."""
    return min(2.0, lease_s / 2)
