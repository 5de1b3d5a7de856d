"""The Optuna study of a sweep: which process runs which trial, and what trials report.

All trials are enqueued when the study begins, and a process claims a trial by changing its state from waiting to
running, which succeeds in one process only. So a sweep never runs more trials than configured, even if processes are
killed. Everything here is synchronous and belongs to one thread, which ``SweepSession`` provides.
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
from optuna.trial import FrozenTrial, Trial, TrialState

from cluster.config.section import first_difference, lasting
from cluster.config.sweep import WilcoxonConfig
from cluster.runs.fingerprints import fingerprints_of_functions, require_same_functions
from cluster.sweep.config import SweepConfig
from cluster.sweep.heartbeats import Heartbeats
from cluster.sweep.pruners import build_pruner, wilcoxon_prunes
from cluster.sweep.samplers import build_sampler
from cluster.sweep.space import Params
from cluster.sweep.storage import storage_errors
from gpo.data.task import fingerprint
from gpo.errors import ConfigError

Outcome = Literal["complete", "pruned", "failed"]

_OWNER, _FOLDER, _VALUES, _AWAY = "process", "folder", "values", "away"
_CONFIRMING, _CONFIRMATION = "confirming", "confirmation"
_CONFIG, _DATA, _FUNCTIONS = "config", "data", "functions"
_ENQUEUED_WITHIN_S = 30.0
_DESCRIBED_WITHIN_S = 2.0
"""Time between the first and the last write of processes that describe the same study at once."""
_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


@dataclass(frozen=True)
class Claim:
    """A trial that this process runs.

    Attributes:
        params: proposed by the sampler.
        folder: URL of the trial's folder; it holds checkpoints where the trial ran before.
    """

    trial: Trial
    params: Params
    folder: str

    @property
    def number(self) -> int:
        """The trial's number, from 0."""
        return self.trial.number


class SharedStudy:
    """A study, seen from one of the processes that work on it.

    A call may reach the storage although its answer is lost, so every method here may be called again.

    Args:
        folder_of: trial number → URL of the folder for a new trial.

    Raises:
        ConfigError: the study exists with another configuration, other data, other functions or other weights.
        StorageError: the storage cannot be reached; likewise from every method.
    """

    @storage_errors()
    def __init__(self, config: SweepConfig, storage: BaseStorage, folder_of: Callable[[int], str]) -> None:
        self._config, self._storage, self._folder_of = config, storage, folder_of
        self._section = config.section
        self._held: set[int] = set()
        self.study = self._open()
        self.heartbeats = Heartbeats(self.study, self._section.lease_s)

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names of the trials' values, in order."""
        return self._section.objectives

    @storage_errors()
    def trials(self) -> list[FrozenTrial]:
        """All trials, by number."""
        return self._trials()

    def is_over(self) -> bool:
        """Whether all trials have ended."""
        return all(trial.state in _STATES.values() for trial in self.trials())

    # -- claiming trials ------------------------------------------------------------------------------------------

    @storage_errors()
    def claim(self) -> Claim | None:
        """Claim the next waiting trial; ``None`` where none waits."""
        for ours in self._trials(TrialState.RUNNING):
            if self._is_mine(ours) and ours.number not in self._held:
                return self._claimed(ours)
        for waiting in self._trials(TrialState.WAITING):
            try:
                taken = self._storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING)
            except UpdateFinishedTrialError:
                continue
            if taken:
                self._storage.set_trial_user_attr(waiting._trial_id, _OWNER, self.heartbeats.me)
                return self._claimed(waiting)
        return None

    @storage_errors()
    def abandoned(self) -> list[int]:
        """The numbers of trials whose process is dead."""
        is_dead = self.heartbeats.dead()
        return [trial.number for trial in self._trials(TrialState.RUNNING) if is_dead(_owner(trial), str(trial.number))]

    @storage_errors()
    def bid(self, number: int) -> bool:
        """Write this process's ID onto a trial whose process is dead; returns whether it still was.

        The last process to write wins. So a bid has won if it is still there after ``bid_settles_s``, which is long
        compared with the time between reading and writing; ``won`` returns whether it has.
        """
        trial = self._trial(number)
        if trial.state is not TrialState.RUNNING:
            return False
        if _owner(trial) == self.heartbeats.me:
            return number not in self._held
        if not self.heartbeats.dead()(_owner(trial), str(number)):
            return False
        self._storage.set_trial_user_attr(trial._trial_id, _OWNER, self.heartbeats.me)
        return True

    @storage_errors()
    def won(self, number: int) -> Claim | None:
        """The trial, if this process's bid for it has won."""
        trial = self._trial(number)
        return self._claimed(trial) if self._is_mine(trial) else None

    @storage_errors()
    def owns(self, claim: Claim) -> bool:
        """Whether the trial was not taken over by a process that took this one for dead."""
        return self._is_mine(self._trial(claim.number))

    def drop(self, claim: Claim) -> None:
        """Note that this process no longer works on the trial; if it still owns the trial, it can claim it again."""
        self._held.discard(claim.number)

    @storage_errors()
    def release(self) -> None:
        """Put every trial of this process back to waiting; its checkpoints stay."""
        for trial in self._trials(TrialState.RUNNING):
            if self._is_mine(trial):
                self._storage.set_trial_user_attr(trial._trial_id, _OWNER, "")
                self._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    # -- what trials report ---------------------------------------------------------------------------------------

    @storage_errors()
    def report(self, claim: Claim, step: int, values: Sequence[float]) -> bool:
        """Report a population's scores after a step; returns whether the trial should be pruned.

        Args:
            step: steps that every trajectory has taken, from 1.
            values: best ``val`` mean of each trajectory, always in the same order.
        """
        trial = claim.trial
        known: list[list[float]] = [*trial.user_attrs.get(_VALUES, [])]
        if step > len(known):
            trial.set_user_attr(_VALUES, [*known, list(values)])
        if len(self._section.objectives) > 1:
            return False
        if step not in self._trial(claim.number).intermediate_values:
            trial.report(sum(values) / len(values), step)
        if not isinstance(self._section.pruning, WilcoxonConfig):
            return trial.should_prune()
        best = best_trial(self._trials())
        if best is None or step < self._section.pruning.min_steps:
            return False
        ours = self._trial(trial.number)
        return wilcoxon_prunes(self.study.pruner, values_by_step(ours), values_by_step(best), best.values[0])

    @storage_errors()
    def was_away(self, claim: Claim) -> bool:
        """Record that a model was unavailable for this trial; returns whether that happened in another attempt too."""
        known = claim.trial.user_attrs.get(_AWAY)
        if known is None:
            claim.trial.set_user_attr(_AWAY, self.heartbeats.me)
        return known not in (None, self.heartbeats.me)

    @storage_errors()
    def tell(self, claim: Claim, outcome: Outcome, values: Sequence[float], notes: Mapping[str, Any]) -> None:
        """Record a trial's outcome.

        Args:
            values: one per objective, of a complete trial.
            notes: name → what else to store with the trial.
        """
        for name, note in notes.items():
            claim.trial.set_user_attr(name, note)
        objectives = list(values) if outcome == "complete" else None
        self.study.tell(claim.trial, objectives, state=_STATES[outcome], skip_if_finished=True)

    # -- the confirmation -----------------------------------------------------------------------------------------

    @storage_errors()
    def bid_to_confirm(self) -> bool:
        """Bid for the confirmation unless a living process has it; see ``owns_confirmation`` for the outcome."""
        owner = self.study.user_attrs.get(_CONFIRMING)
        if owner and owner != self.heartbeats.me and not self.heartbeats.dead()(str(owner), _CONFIRMING):
            return False
        self.study.set_user_attr(_CONFIRMING, self.heartbeats.me)
        return True

    @storage_errors()
    def owns_confirmation(self) -> bool:
        """Whether this process runs the confirmation."""
        return bool(self.study.user_attrs.get(_CONFIRMING) == self.heartbeats.me)

    @storage_errors()
    def save_confirmation(self, document: Mapping[str, Any]) -> None:
        """Store the confirmation's result."""
        self.study.set_user_attr(_CONFIRMATION, json.dumps(document))
        self.study.set_user_attr(_CONFIRMING, "")

    @property
    @storage_errors()
    def confirmation(self) -> dict[str, Any] | None:
        """The last confirmation's result, as in ``sweep.json``."""
        stored = self.study.user_attrs.get(_CONFIRMATION)
        return None if stored is None else dict(json.loads(stored))

    # -- inside ---------------------------------------------------------------------------------------------------

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        trials = self.study.get_trials(deepcopy=False, states=states or None)
        # Two processes that enqueue at once may enqueue too many; the surplus never runs.
        return [trial for trial in trials if trial.number < self._section.trials]

    def _trial(self, number: int) -> FrozenTrial:
        return next(trial for trial in self._trials() if trial.number == number)

    def _is_mine(self, trial: FrozenTrial) -> bool:
        return trial.state is TrialState.RUNNING and _owner(trial) == self.heartbeats.me

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

    def _open(self) -> Study:
        config, section = self._config, self._section
        # Before the study is created: a study without them could never be used.
        essence, functions = _essence(config), fingerprints_of_functions(config.base, config.tasks)
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
            if not _is_described(study) and _is_empty(study) and study.directions == directions:
                # Whoever created it was killed. If several processes describe it, the last one to write decides.
                self._describe(study, essence, functions)
                time.sleep(_DESCRIBED_WITHIN_S)
            self._require_same(study, essence, functions)
            self._await_enqueued(study)
        else:
            self._describe(study, essence, functions)
            self._enqueue(study)
        return study

    def _describe(self, study: Study, essence: Mapping[str, Any], functions: Mapping[str, Mapping[str, str]]) -> None:
        study.set_user_attr(_FUNCTIONS, json.dumps(functions))
        study.set_metric_names(list(self._section.objectives))
        study.set_user_attr(_CONFIG, json.dumps(essence))  # the last: with it, others use the study

    def _enqueue(self, study: Study) -> None:
        for number in range(len(study.get_trials(deepcopy=False)), self._section.trials):
            study.enqueue_trial(self._config.space.paper if number == 0 else {})

    def _await_enqueued(self, study: Study) -> None:
        """Wait until the study's creator has enqueued all trials; enqueue the rest if it died or wanted fewer."""
        deadline = time.monotonic() + _ENQUEUED_WITHIN_S
        before = -1
        while (known := len(study.get_trials(deepcopy=False))) < self._section.trials:
            if known == before or time.monotonic() > deadline:
                self._enqueue(study)
                return
            before = known
            time.sleep(1.0)

    def _require_same(
        self, study: Study, essence: Mapping[str, Any], functions: Mapping[str, Mapping[str, str]]
    ) -> None:
        stored = study.user_attrs.get(_CONFIG)
        if stored is None:
            raise ConfigError(
                "sweep.study", f"the study {study.study_name!r} was not created by gpo sweep", "name another study"
            )
        difference = first_difference(json.loads(stored), essence)
        if difference is not None:
            field, old, new = difference
            if field.startswith(f"{_DATA}."):
                raise ConfigError(
                    "tasks",
                    f"the examples of {field.partition('.')[2]!r} are not those that the study {study.study_name!r} "
                    "began with",
                    "restore the files, or name another study",
                )
            raise ConfigError(
                field,
                f"the study {study.study_name!r} has {old!r:.80}, not {new!r:.80}",
                "use its own configuration, or name another study",
            )
        require_same_functions(
            json.loads(study.user_attrs.get(_FUNCTIONS, "{}")),
            functions,
            where=f"the study {study.study_name!r}",
            remedy="name another study",
        )


def _essence(config: SweepConfig) -> dict[str, Any]:
    """The options and the data that must be the same in all processes of a study."""
    data = {task.name: fingerprint(task) for task in config.tasks}
    return {**lasting(config.base), "sweep": lasting(config.section), _DATA: data}


def _is_described(study: Study) -> bool:
    """Whether the study has its configuration; waits for the process that may have created it a moment ago."""
    deadline = time.monotonic() + _ENQUEUED_WITHIN_S
    while not (is_described := _CONFIG in study.user_attrs) and time.monotonic() < deadline:
        time.sleep(0.1)
    return is_described


def _is_empty(study: Study) -> bool:
    """Whether the study holds nothing but what a killed process may have written before the configuration."""
    return not study.user_attrs.keys() - {_FUNCTIONS} and not study.get_trials(deepcopy=False)


def _owner(trial: FrozenTrial) -> str | None:
    return trial.user_attrs.get(_OWNER) or None


def values_by_step(trial: FrozenTrial) -> list[list[float]]:
    """After each step, the best ``val`` mean of each trajectory."""
    return list(trial.user_attrs.get(_VALUES, []))


def bid_settles_s(lease_s: float) -> float:
    """Seconds after which a bid that is still there has won."""
    return min(2.0, lease_s / 2)


def completed(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Trials that are complete."""
    return [trial for trial in trials if trial.state is TrialState.COMPLETE and trial.values]


def best_trial(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The complete trial with the highest ``val``; of equals the cheapest, then the first."""
    return min(completed(trials), key=lambda trial: (-trial.values[0], *trial.values[1:], trial.number), default=None)


def pareto_front(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The complete trials that no other trial dominates, best ``val`` first."""
    known = completed(trials)

    def losses(trial: FrozenTrial) -> tuple[float, ...]:
        return (-trial.values[0], *trial.values[1:])

    def is_dominated(trial: FrozenTrial) -> bool:
        mine = losses(trial)
        return any(
            losses(other) != mine and all(one <= two for one, two in zip(losses(other), mine, strict=True))
            for other in known
        )

    return sorted((trial for trial in known if not is_dominated(trial)), key=losses)
