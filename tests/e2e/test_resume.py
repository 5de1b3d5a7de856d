"""Commands that are interrupted, killed and resumed; the same run without a disturbance works in this process."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import gpo as library
from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from gpo.checkpoint import decode
from gpo.trajectory import Spending
from tests.commands import Finished, gpo_in_this_process
from tests.configs import triage_task
from tests.paths import read_json
from tests.unit.cluster.api.test_optimize import ROWS

if TYPE_CHECKING:
    from tests.commands import Gpo, Started
    from tests.conftest import Until

NUM_STEPS = 6
SLOW = Behaviour(latency_s=0.05)
"""Slow enough for a signal after one step to arrive during the next."""


@dataclass(frozen=True)
class Attempt:
    """One command over a run's folder.

    Attributes:
        run: the folder.
        folder: a copy of its files at the end of the attempt, without the checkpoints.
        paid: how often each call was answered, by model and content.
        saved: the spending in the checkpoints, over all attempts so far.
    """

    finished: Finished
    run: Path
    folder: Path
    paid: Counter[tuple[str, str]]
    saved: Spending

    @property
    def summary(self) -> dict[str, Any]:
        return dict(read_json(self.folder / "summary.json"))

    def num_paid(self, model: str) -> int:
        return sum(count for (asked, _), count in self.paid.items() if asked == model)


@dataclass
class Attempts:
    """The attempts over one configuration, by name.

    Attributes:
        work: the working directory.
    """

    gpo: Gpo
    work: Path
    config: Path
    endpoint: SimulatedEndpoint
    until: Until
    made: dict[str, Attempt] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Attempt:
        return self.made[name]

    def make(self, name: str, *options: object, end: Callable[[Started], object] | None = None) -> None:
        """Run a command in the only folder below ``run.dir``, or in a new one.

        Args:
            end: ends the command early, after two more steps.
        """
        runs, before = self.work / "runs", len(self.endpoint.requests)
        self.endpoint.behaviour = SLOW if end else Behaviour()
        command = self.gpo.start("run", self.config, *options, cwd=self.work)
        if end is not None:
            done = sum(_num_lines(path) for path in runs.glob("*/steps.jsonl"))
            self.until(
                lambda: sum(_num_lines(path) for path in runs.glob("*/steps.jsonl")) >= done + 2, "two steps are done"
            )
            end(command)
        finished = command.finish()
        self.until(lambda: not command.survivors(), "every process of the run has ended")
        # Else, a call of this attempt would count as one of the next.
        self.until(lambda: self.endpoint._service._in_flight == 0, "the endpoint has answered every call")
        (run,) = runs.iterdir()
        self.add(name, finished, run, before)

    def add(self, name: str, finished: Finished, folder: Path, before: int) -> None:
        """Add an attempt, whose calls are those after the first ``before``."""
        calls = [call for call in self.endpoint.requests[before:] if call.model and call.status == 200]
        copy = self.work / f"after-{name}"
        copy.mkdir()
        for path in folder.iterdir():
            if path.is_file():
                (copy / path.name).write_bytes(path.read_bytes())
        saved = [decode(path.read_bytes()) for path in folder.rglob("*.msgpack")]
        tests = [Spending(task=test.usage) for checkpoint in saved for test in checkpoint.test.values()]
        searches = [checkpoint.trajectory.spending for checkpoint in saved]
        paid = Counter((call.model, call.content) for call in calls)
        saving = sum([*searches, *tests], start=Spending())
        self.made[name] = Attempt(finished, folder, copy, paid, saving)


@pytest.fixture(scope="module")
def attempts(gpo: Gpo, until: Until, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attempts]:
    """A run without a disturbance, in this process; its configuration is then interrupted, killed, and completed."""
    folder = tmp_path_factory.mktemp("resume")
    with SimulatedEndpoint() as endpoint:
        run = library.optimize(
            triage_task()["prompt"],
            **ROWS,
            name="triage",
            metric="exact",
            position="question_begin",
            task_model=library.Endpoint(endpoint.base_url, model="task-model", max_concurrency=8, check=False),
            optimizer_model=library.Endpoint(endpoint.base_url, model="opt-model", check=False),
            seed=[0, 1],
            steps=NUM_STEPS,
            optimizer={"candidates": 3},
            evaluation={"val_size": 20, "test_size": 30},
            cache={"kind": "none"},  # so that the checkpoints alone save calls
            run_dir=folder / "undisturbed",
            progress=False,
        )
        made = Attempts(gpo, folder, folder / "undisturbed" / "config.yaml", endpoint, until)
        made.add("undisturbed", Finished(int(run.status != "completed"), "", ""), folder / "undisturbed", 0)
        made.make("interrupted", end=lambda command: command.interrupt())
        made.make("killed", "--resume", end=lambda command: command.kill())
        made.make("resumed", "--resume", "--run-dir", made["killed"].run)
        yield made


def _num_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_an_interrupted_run_saves_its_steps_and_says_how_to_resume(attempts: Attempts) -> None:
    stopped = attempts["interrupted"]
    assert stopped.finished.code == 1
    assert stopped.summary["status"] == "interrupted", stopped.finished.stderr
    *_, last = stopped.finished.stderr.splitlines()
    assert "Interrupted" in last
    assert "--resume" in last
    rows = stopped.summary["trajectories"]
    assert 2 <= sum(row["steps"] for row in rows) < NUM_STEPS * len(rows)
    assert {row["error"] for row in rows} == {None}
    assert _num_lines(stopped.folder / "steps.jsonl") == sum(row["steps"] for row in rows)


def test_a_resumed_run_has_the_result_of_an_undisturbed_one_without_a_cluster(attempts: Attempts) -> None:
    undisturbed, resumed = attempts["undisturbed"], attempts["resumed"]
    assert (undisturbed.finished.code, resumed.finished.code) == (0, 0), resumed.finished.stderr
    for name in ("steps.jsonl", "best_prompts.json"):
        assert (resumed.folder / name).read_bytes() == (undisturbed.folder / name).read_bytes()
    assert resumed.summary["status"] == "completed"
    assert resumed.summary["trajectories"] == undisturbed.summary["trajectories"]
    assert resumed.summary["llm"] == undisturbed.summary["llm"]


def test_a_resumed_run_is_the_same_run(attempts: Attempts) -> None:
    assert attempts["killed"].finished.code == -signal.SIGKILL
    first, last = attempts["interrupted"].summary, attempts["resumed"].summary
    for name in ("run_id", "started_at"):
        assert first[name] == last[name]
    assert first["wall_s"] < last["wall_s"]


def test_saved_work_is_not_paid_for_again(attempts: Attempts) -> None:
    names = ("undisturbed", "interrupted", "killed", "resumed")
    undisturbed, interrupted, killed, resumed = (attempts[name] for name in names)
    assert all(attempt.paid <= undisturbed.paid for attempt in (interrupted, killed, resumed))
    for role, model in (("task", "task-model"), ("optimizer", "opt-model")):
        saved = [getattr(attempt.saved, role).requests for attempt in (interrupted, killed, undisturbed)]
        assert 0 < saved[0] < saved[1] < saved[2] == undisturbed.num_paid(model)
        assert resumed.num_paid(model) == undisturbed.num_paid(model) - saved[1]
    # Calls are paid for twice if they were in flight at a stop: at most one step's scoring for each trajectory.
    twice = interrupted.paid + killed.paid + resumed.paid - undisturbed.paid
    assert sum(twice.values()) <= 2 * (2 * 3 * 20)


def test_resuming_a_completed_run_makes_no_call_and_starts_no_ray(attempts: Attempts) -> None:
    resumed, before = attempts["resumed"], len(attempts.endpoint.requests)
    options = ("--resume", "--run-dir", resumed.run)
    again = gpo_in_this_process("run", attempts.config, *options, cwd=attempts.work)
    assert again.code == 0, again.stderr
    assert len(attempts.endpoint.requests) == before
    for name in ("steps.jsonl", "best_prompts.json"):
        assert (resumed.run / name).read_bytes() == (resumed.folder / name).read_bytes()
    assert read_json(resumed.run / "summary.json")["trajectories"] == resumed.summary["trajectories"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), ("--run-dir", "holds a run already", "add --resume")),
        (("--resume", "--set", "optimizer.steps=9"), ("optimizer.steps", str(NUM_STEPS), "9", "its own configuration")),
        (("--resume", "--set", "tasks.0.prompt=Think."), ("tasks[0].prompt", "'Think.'", "its own configuration")),
        (("--resume", "--set", "run.seeds=[0]"), ("run.seeds", "[0]", "its own configuration")),
    ],
)
def test_a_run_is_neither_overwritten_nor_resumed_with_other_settings(
    options: tuple[str, ...], words: tuple[str, ...], attempts: Attempts
) -> None:
    config, folder = attempts.config, attempts["resumed"].run
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    finished = gpo_in_this_process("run", config, "--run-dir", folder, *options, cwd=attempts.work)
    assert finished.code == 2
    (line,) = finished.stderr.splitlines()
    assert not [word for word in words if word not in line], line
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
