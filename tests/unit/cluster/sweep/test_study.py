from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import Mock
from uuid import uuid4

import optuna
import pytest
import yaml
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from actors.folder import Folder
from cluster.config.sweep import JournalStorageConfig
from cluster.sweep import study as study_module
from cluster.sweep.config import SweepConfig, load_sweep
from cluster.sweep.samplers import require_packages
from cluster.sweep.storage import open_storage
from cluster.sweep.study import Claim, SharedStudy, best_trial, pareto_front, values_by_step
from gpo.errors import ConfigError, EvaluationError, StorageError
from gpo.limits.messages import Spent
from tests.paths import ROOT, TRIAGE
from tests.servers import postgresql_server, redis_server

MODEL = {"base_url": "http://127.0.0.1:9/v1", "model": "a-model"}
INITIAL, BY = "optimizer.schedule.initial", "optimizer.direction.trajectory.by"
TRIALS = 12


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def sweep_file(folder: Path, **sweep: Any) -> Path:
    document: dict[str, Any] = {
        "run": {"name": "tuned"},
        "models": {"task": MODEL, "optimizer": MODEL},
        "tasks": [
            {
                "name": "triage",
                "data": {split: str(TRIAGE / f"{split}.jsonl") for split in ("train", "val", "test")},
                "fields": {"input": "text", "target": "label"},
            }
        ],
        "optimizer": {"steps": 9, "candidates": 2},
        "sweep": {
            "trials": TRIALS,
            "lease_s": 1000,
            "space": {INITIAL: {"low": 5, "high": 60}, BY: {"choices": ["recency", "importance", "relevance"]}},
            **sweep,
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


class Process:
    """A sweep's study in one process; a test may use several."""

    def __init__(self, folder: Path, **sweep: Any) -> None:
        self.config: SweepConfig = load_sweep(sweep_file(folder, **sweep), ())
        self.storage: BaseStorage = open_storage(self.config.section.storage, Folder.at(str(folder)))
        self.study = SharedStudy(self.config, self.storage, lambda number: str(folder / f"{number:04d}"))
        self.clock = 0.0
        self.study.heartbeats.now = lambda: self.clock
        self.study.heartbeats.beat(Spent())

    def claim(self) -> Claim:
        claim = self.study.claim()
        assert claim is not None
        return claim

    def complete(self, claim: Claim, val: float) -> None:
        self.study.tell(claim, "complete", [val], {})

    def fail_at(self, patch: pytest.MonkeyPatch, write: int, *, arrives: bool) -> None:
        """Let the storage fail once, at the given write of a trial attribute, before or after it is stored."""
        write_attr, so_far = self.storage.set_trial_user_attr, [0]

        def fail(*arguments: Any, **named: Any) -> None:
            so_far[0] += 1
            if so_far[0] != write or arrives:
                write_attr(*arguments, **named)
            if so_far[0] == write:
                raise StorageInternalError("away")

        patch.setattr(self.storage, "set_trial_user_attr", fail)

    def beat_from_another_machine(self) -> None:
        """Write a heartbeat as a process of another machine."""
        self.study.heartbeats.beat(Spent())
        name = f"process:{self.study.heartbeats.me}"
        row = self.study.study.user_attrs[name]
        self.study.study.set_user_attr(name, {**row, "identity": "another-boot 1 2 elsewhere"})


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="module")
def postgresql_url() -> Iterator[str]:
    with postgresql_server() as url:
        yield url


@pytest.fixture
def two(tmp_path: Path) -> tuple[Process, Process]:
    """Two processes with one study."""
    return Process(tmp_path), Process(tmp_path)


@pytest.fixture(params=["journal", "sqlite", "redis", "postgresql"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Process, Process]:
    sweep: dict[str, Any] = {"study": uuid4().hex}
    if request.param == "sqlite":
        sweep["storage"] = f"sqlite:///{tmp_path}/study.db"
    elif request.param != "journal":
        sweep["storage"] = request.getfixturevalue(f"{request.param}_url")
    return Process(tmp_path, **sweep), Process(tmp_path, **sweep)


def test_all_trials_are_enqueued_and_the_first_is_the_papers_setting(stored: tuple[Process, Process]) -> None:
    one, other = stored
    assert [trial.number for trial in other.study.trials()] == list(range(TRIALS))
    first, second = one.claim(), other.claim()
    assert (first.number, second.number) == (0, 1)
    assert first.params == {INITIAL: 50, BY: "relevance"}
    assert first.folder.endswith("0000")


@pytest.mark.parametrize("arrives", [True, False])
@pytest.mark.parametrize("write", [1, 2])
def test_a_claim_can_be_repeated_after_a_storage_error(
    two: tuple[Process, Process], monkeypatch: pytest.MonkeyPatch, *, write: int, arrives: bool
) -> None:
    one, other = two
    with monkeypatch.context() as hiccup:
        one.fail_at(hiccup, write, arrives=arrives)
        with pytest.raises(StorageError):
            one.study.claim()
    again = one.claim()
    if (write, arrives) == (1, False):  # no process owns the trial until its lease is over
        assert again.number == 1
        for process in two:
            process.study.abandoned()
            process.clock = 2000.0
        assert one.study.bid(0)
        again = one.study.won(0) or again
    assert again.number == 0
    assert one.study.claim().number in (1, 2)  # type: ignore[union-attr]
    assert other.study.abandoned() == []


@pytest.mark.parametrize("arrives", [True, False])
def test_a_bid_can_be_repeated_after_a_storage_error(
    two: tuple[Process, Process], monkeypatch: pytest.MonkeyPatch, *, arrives: bool
) -> None:
    dead, heir = two
    dead.claim()
    dead.study.heartbeats.beat(Spent(), ended=True)
    with monkeypatch.context() as hiccup:
        heir.fail_at(hiccup, 1, arrives=arrives)
        with pytest.raises(StorageError):
            heir.study.bid(0)
    assert heir.study.bid(0)
    assert heir.study.won(0) is not None
    assert not heir.study.bid(0)  # it owns the trial


def test_a_trial_waits_once_for_an_unavailable_model(two: tuple[Process, Process]) -> None:
    one, other = two
    claim = one.claim()
    assert [one.study.was_away(claim) for _ in range(2)] == [False, False]
    one.study.release()
    again = other.claim()
    assert (again.number, other.study.was_away(again)) == (claim.number, True)


def test_a_dropped_trial_can_be_claimed_again(two: tuple[Process, Process]) -> None:
    one, _ = two
    claim = one.claim()
    one.study.drop(claim)
    assert one.claim().number == claim.number
    assert one.claim().number == claim.number + 1


def test_two_processes_share_the_trials(stored: tuple[Process, Process]) -> None:
    claims: list[int] = []
    while True:
        taken = [claim for process in stored if (claim := process.study.claim()) is not None]
        if not taken:
            break
        for process, claim in zip(stored, taken, strict=False):
            claims.append(claim.number)
            process.complete(claim, 0.5)
    assert sorted(claims) == list(range(TRIALS))
    assert stored[0].study.is_over()
    assert len(stored[1].study.study.trials) == TRIALS


def test_a_released_trial_keeps_its_proposal_and_folder(two: tuple[Process, Process]) -> None:
    one, other = two
    claim = one.claim()
    one.study.report(claim, 1, [0.25, 0.75])
    one.study.release()
    again = other.claim()
    assert (again.number, again.params, again.folder) == (claim.number, claim.params, claim.folder)
    assert not one.study.owns(claim)
    other.study.report(again, 1, [0.25, 0.75])  # reported twice, stored once
    other.study.report(again, 2, [0.5, 1.0])
    trial = other.study.trials()[0]
    assert trial.intermediate_values == {1: 0.5, 2: 0.75}
    assert values_by_step(trial) == [[0.25, 0.75], [0.5, 1.0]]


def test_a_trial_is_taken_over_after_a_lease_without_heartbeat(stored: tuple[Process, Process]) -> None:
    one, other = stored
    claim = one.claim()
    one.beat_from_another_machine()
    assert other.study.abandoned() == []
    other.clock = 999.0
    one.beat_from_another_machine()
    assert other.study.abandoned() == []  # there was a heartbeat in the meantime
    other.clock = 1998.0
    assert other.study.abandoned() == []
    assert not other.study.bid(claim.number)
    other.clock = 2000.0
    assert other.study.abandoned() == [claim.number]
    assert other.study.bid(claim.number)
    taken = other.study.won(claim.number)
    assert taken is not None
    assert (taken.params, taken.folder) == (claim.params, claim.folder)
    assert not one.study.owns(claim)
    assert not one.study.bid(claim.number)


def test_one_of_two_bidders_wins_a_dead_process_trial(tmp_path: Path) -> None:
    dead, one, other = (Process(tmp_path) for _ in range(3))
    claim = dead.claim()
    dead.study.heartbeats.beat(Spent(), ended=True)
    assert one.study.bid(claim.number)
    # The other read before the first wrote, and writes after it.
    other.storage.set_trial_user_attr(claim.trial._trial_id, "process", other.study.heartbeats.me)
    settled = [process.study.won(claim.number) for process in (one, other)]
    assert [one is not None for one in settled] == [False, True]


def test_a_killed_local_process_is_dead_at_once(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from tests.unit.cluster.sweep.test_study import Process; "
        "Process(Path(sys.argv[1])).claim(); os.kill(os.getpid(), 9)"
    )
    root = ROOT
    died = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, env={**os.environ, "PYTHONPATH": "."})
    assert died.returncode == -9
    process = Process(tmp_path)
    assert process.study.abandoned() == [0]
    assert process.study.bid(0)
    assert process.study.won(0) is not None


def test_joining_a_study_needs_its_configuration_but_may_add_trials(tmp_path: Path) -> None:
    Process(tmp_path)
    with pytest.raises(ConfigError, match="sampler"):
        Process(tmp_path, sampler={"kind": "random"})
    with pytest.raises(ConfigError, match="high"):
        Process(tmp_path, space={INITIAL: {"low": 5, "high": 61}, BY: {"choices": ["recency"]}})
    assert len(Process(tmp_path, trials=TRIALS + 3, max_parallel_trials=1).study.trials()) == TRIALS + 3
    assert len(Process(tmp_path, trials=4).study.trials()) == 4


def test_a_journal_with_an_incomplete_last_line_is_repaired(tmp_path: Path) -> None:
    process = Process(tmp_path)
    process.complete(process.claim(), 0.5)
    with (tmp_path / "study.journal").open("ab") as journal:
        journal.write(b'{"op_code":6,"worker')
    again = Process(tmp_path)
    again.complete(again.claim(), 0.75)
    assert [trial.value for trial in Process(tmp_path).study.trials()[:2]] == [0.5, 0.75]


def proposals(process: Process, order: Sequence[float]) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for value in order:
        claim = process.claim()
        found.append(tuple(claim.params.values()))
        process.complete(claim, value)
    return found


@pytest.mark.parametrize("kind", ["tpe", "random", "qmc"])
def test_a_resumed_sweep_proposes_what_an_uninterrupted_one_does(kind: str, tmp_path: Path) -> None:
    values = [Random(index).random() for index in range(TRIALS)]
    sampler = {"kind": kind, **({"startup_trials": 4} if kind == "tpe" else {})}
    whole = proposals(Process(tmp_path / "whole", sampler=sampler), values)
    in_two = proposals(Process(tmp_path / "parts", sampler=sampler), values[:7])
    in_two += proposals(Process(tmp_path / "parts", sampler=sampler), values[7:])
    assert in_two == whole
    assert len(set(whole)) > TRIALS // 2
    other = proposals(Process(tmp_path / "other", sampler=sampler, seed=1), values)
    assert other[1:] != whole[1:]


def test_two_processes_get_different_points_of_the_qmc_sequence(tmp_path: Path) -> None:
    one, other = (Process(tmp_path, sampler={"kind": "qmc"}) for _ in range(2))
    proposals(one, [0.5, 0.25, 0.75])
    study = one.study.study._study_id
    before = one.storage.get_study_system_attrs(study)
    first = one.claim()
    for name, value in before.items():  # as the other process has read it already
        one.storage.set_study_system_attr(study, name, value)
    assert other.claim().params != first.params


def test_the_cmaes_sampler_proposes(tmp_path: Path) -> None:
    process = Process(tmp_path, sampler={"kind": "cmaes", "startup_trials": 2})
    assert len(set(proposals(process, [0.1, 0.2, 0.3, 0.4, 0.5]))) > 3


@pytest.mark.parametrize(("kind", "package"), [("gp", "torch"), ("cmaes", "cmaes")])
def test_a_sampler_without_its_package_says_what_to_install(
    kind: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.sweep.samplers.find_spec", lambda _: None)
    config = load_sweep(sweep_file(tmp_path, sampler={"kind": kind, "startup_trials": 2}), ())
    with pytest.raises(ConfigError, match=f"pip install {package}"):
        require_packages(config.section)


def pruned_at(process: Process, curve: Sequence[Sequence[float]]) -> int | None:
    """Run one trial with these values after its steps; returns the step at which it was pruned."""
    claim = process.claim()
    for step, values in enumerate(curve, start=1):
        if process.study.report(claim, step, values):
            process.study.tell(claim, "pruned", (), {})
            return step
    process.complete(claim, sum(curve[-1]) / len(curve[-1]))
    return None


GOOD = [[0.5 + 0.05 * step] * 4 for step in range(9)]
BAD = [[0.1 + 0.01 * step] * 4 for step in range(9)]


@pytest.mark.parametrize(
    ("pruner", "step"),
    [
        ({"kind": "none"}, None),
        ({"kind": "median", "startup_trials": 2, "min_steps": 3}, 3),
        ({"kind": "successive_halving", "min_steps": 2, "reduction": 3}, 2),
        ({"kind": "hyperband", "min_steps": 2, "reduction": 4}, 2),
        ({"kind": "wilcoxon", "p": 0.05, "min_steps": 3}, 3),
    ],
)
def test_a_pruner_stops_bad_trials(pruner: dict[str, Any], step: int | None, tmp_path: Path) -> None:
    process = Process(tmp_path, pruner=pruner)
    assert [pruned_at(process, GOOD) for _ in range(3)].count(None) >= 1
    fates = [pruned_at(process, BAD) for _ in range(4)]
    assert Counter(fates).most_common(1)[0][0] == step
    trial = process.study.trials()[6]
    assert trial.state is (TrialState.COMPLETE if step is None else TrialState.PRUNED)
    assert trial.value == pytest.approx(0.1 + 0.01 * ((step or 9) - 1))


def test_several_objectives_give_a_front_and_the_best_by_val(tmp_path: Path) -> None:
    process = Process(tmp_path, objectives=["val", "tokens"])
    for values in ([0.8, 900.0], [0.9, 2000.0], [0.7, 1000.0], [0.9, 2500.0]):
        claim = process.claim()
        assert not process.study.report(claim, 1, [values[0]])
        process.study.tell(claim, "complete", values, {})
    trials = process.study.trials()
    assert [trial.number for trial in pareto_front(trials)] == [1, 0]
    best = best_trial(trials)
    assert best is not None
    assert best.number == 1
    assert process.study.study.metric_names == ["val", "tokens"]


def test_one_process_confirms(tmp_path: Path) -> None:
    one, other = Process(tmp_path), Process(tmp_path)
    assert one.study.bid_to_confirm()
    assert one.study.owns_confirmation()
    assert not other.study.bid_to_confirm()
    one.study.save_confirmation({"trial": 3})
    assert other.study.confirmation == {"trial": 3}


def test_spending_of_other_processes_is_shared(tmp_path: Path) -> None:
    one, other = Process(tmp_path), Process(tmp_path)
    one.study.heartbeats.beat(Spent(3, 40, 0.5))
    one.study.heartbeats.beat(Spent(4, 50, 0.75), ended=True)
    assert other.study.heartbeats.others_spent() == Spent(4, 50, 0.75)
    assert one.study.heartbeats.others_spent() == Spent()


def test_a_storage_that_cannot_be_reached_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("sqlite:////nowhere/at/all.db", "redis://127.0.0.1:9/0", "nonsense://x"):
        with pytest.raises(ConfigError, match=r"sweep\.storage\.url"):
            Process(tmp_path, storage=url)
    with pytest.raises(ConfigError, match="GPO_SWEEP_URL is not set"):
        Process(tmp_path, storage={"kind": "url", "url_env": "GPO_SWEEP_URL"})
    monkeypatch.setenv("GPO_SWEEP_URL", "postgresql://me:hush@127.0.0.1:9/db")
    with pytest.raises(ConfigError) as caught:
        Process(tmp_path, storage={"kind": "url", "url_env": "GPO_SWEEP_URL"})
    assert "hush" not in str(caught.value)
    with pytest.raises(ConfigError, match="not a local folder"):
        open_storage(JournalStorageConfig(), Folder.at("memory://sweeps"))


@pytest.mark.parametrize(
    ("url", "package"), [("redis://127.0.0.1:9/0", "redis"), ("postgresql://me@127.0.0.1:9/db", "psycopg[binary]")]
)
def test_a_missing_storage_package_is_named(
    url: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.sweep.storage.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=re.escape(f"install it: pip install '{package}'")):
        Process(tmp_path, storage=url)


@pytest.mark.parametrize("writes", range(7))
def test_a_study_can_be_used_after_the_process_that_created_it_was_killed(
    writes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_ENQUEUED_WITHIN_S", "_DESCRIBED_WITHIN_S"):
        monkeypatch.setattr(study_module, name, 0.0)
    append, so_far = JournalFileBackend.append_logs, [0]

    def appended_or_killed(self: JournalFileBackend, entries: list[dict[str, Any]]) -> None:
        so_far[0] += 1
        if so_far[0] > writes:
            raise KeyboardInterrupt
        append(self, entries)

    with monkeypatch.context() as patch:
        patch.setattr(JournalFileBackend, "append_logs", appended_or_killed)
        with pytest.raises(KeyboardInterrupt):
            Process(tmp_path, trials=2)
    survivor = Process(tmp_path, trials=2)
    assert [survivor.claim().number, survivor.claim().number] == [0, 1]
    assert survivor.study.study.metric_names == ["val"]
    with pytest.raises(ConfigError, match="sampler"):
        Process(tmp_path, trials=2, sampler={"kind": "random"})


@pytest.mark.parametrize("content", ["a trial", "an attribute", "a direction"])
def test_a_study_of_another_program_is_refused(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_module, "_ENQUEUED_WITHIN_S", 0.0)
    config = load_sweep(sweep_file(tmp_path), ())
    storage = open_storage(config.section.storage, Folder.at(str(tmp_path)))
    direction = "minimize" if content == "a direction" else "maximize"
    other = optuna.create_study(study_name=config.study, storage=storage, direction=direction)
    if content == "a trial":
        other.ask()
    if content == "an attribute":
        other.set_user_attr("theirs", 1)
    with pytest.raises(ConfigError, match="was not created by gpo sweep"):
        Process(tmp_path)


def test_a_study_can_be_used_after_a_first_attempt_that_could_not_describe_its_functions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_module, "_ENQUEUED_WITHIN_S", 0.0)
    with monkeypatch.context() as patch:
        away = Mock(side_effect=EvaluationError("the weights are on a share that is away"))
        patch.setattr(study_module, "fingerprints_of_functions", away)
        with pytest.raises(EvaluationError, match="on a share that is away"):
            Process(tmp_path, trials=2)
    assert Process(tmp_path, trials=2).claim().number == 0
