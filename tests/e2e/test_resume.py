from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from gpo.checkpoint import decode
from gpo.trajectory import Spending
from tests.commands import gpo_in_this_process

if TYPE_CHECKING:
    from tests.commands import Finished, Gpo, Started
    from tests.configs import WriteConfig
    from tests.conftest import Until

NUM_STEPS = 5
SLOW = Behaviour(latency_s=0.05)
"""A step takes long enough for a signal after one to fall into the next."""


@dataclass(frozen=True)
class Sitting:
    """One command over a run's folder.

    Attributes:
        folder: what it left there, but for the checkpoints.
        paid: which calls were answered, by model and content.
        saved: what the checkpoints account for, of all sittings so far.
    """

    command: Started
    finished: Finished
    folder: Path
    paid: Counter[tuple[str, str]]
    saved: Spending

    @property
    def summary(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "summary.json").read_text(encoding="utf-8")))


def _sitting(command: Started, folder: Path, endpoint: SimulatedEndpoint, before: int) -> Sitting:
    finished = command.finish()
    paid = Counter(
        (call.model, call.content) for call in endpoint.requests[before:] if call.model and call.status == 200
    )
    # As it was then: a later sitting goes on in the same folder.
    kept = folder.parents[1] / f"results-after-{before}"
    kept.mkdir()
    for path in folder.iterdir():
        if path.is_file():
            (kept / path.name).write_bytes(path.read_bytes())
    saved = [decode(path.read_bytes()) for path in folder.rglob("*.msgpack")]
    tests = [Spending(task=test.usage) for checkpoint in saved for test in checkpoint.test.values()]
    searches = [checkpoint.trajectory.spending for checkpoint in saved]
    return Sitting(command, finished, kept, paid, sum([*searches, *tests], start=Spending()))


@pytest.fixture(scope="module")
def endpoint() -> Iterator[SimulatedEndpoint]:
    with SimulatedEndpoint() as running:
        yield running


@pytest.fixture(scope="module")
def config(endpoint: SimulatedEndpoint, write_config: WriteConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    return write_config(
        folder,
        endpoint.base_url,
        optimizer={"steps": NUM_STEPS},
        models={"task": {"max_concurrency": 8}},
        cache={"kind": "none"},  # what is not paid for again is what the checkpoints hold, and nothing else
    )


@pytest.fixture(scope="module")
def undisturbed(endpoint: SimulatedEndpoint, config: Path, gpo: Gpo) -> Sitting:
    folder, before = config.with_name("runs-undisturbed") / "run", len(endpoint.requests)
    return _sitting(gpo.start("run", config, "--run-dir", folder, cwd=config.parent), folder, endpoint, before)


@pytest.fixture(scope="module")
def interrupted(endpoint: SimulatedEndpoint, config: Path, gpo: Gpo, until: Until, undisturbed: Sitting) -> Sitting:
    """By Ctrl-C, in a run in a folder of its own below ``run.dir``."""
    runs, before = config.with_name("runs"), len(endpoint.requests)
    endpoint.behaviour = SLOW
    command = gpo.start("run", config, cwd=config.parent)
    until(lambda: any(_num_lines(path) >= 2 for path in runs.glob("*/steps.jsonl")), "two steps are done")
    command.interrupt()
    (folder,) = runs.iterdir()
    return _sitting(command, folder, endpoint, before)


@pytest.fixture(scope="module")
def terminated(endpoint: SimulatedEndpoint, config: Path, gpo: Gpo, until: Until, interrupted: Sitting) -> Sitting:
    """By SIGTERM, after it went on where Ctrl-C had ended it."""
    (folder,), before = config.with_name("runs").iterdir(), len(endpoint.requests)
    command = gpo.start("run", config, "--resume", cwd=config.parent)
    done = _num_lines(folder / "steps.jsonl")
    until(lambda: _num_lines(folder / "steps.jsonl") >= done + 2, "two more steps are done")
    command.process.send_signal(signal.SIGTERM)
    return _sitting(command, folder, endpoint, before)


@pytest.fixture(scope="module")
def resumed(endpoint: SimulatedEndpoint, config: Path, gpo: Gpo, terminated: Sitting) -> Sitting:
    """To the end."""
    (folder,), before = config.with_name("runs").iterdir(), len(endpoint.requests)
    endpoint.behaviour = Behaviour()
    command = gpo.start("run", config, "--run-dir", folder, "--resume", cwd=config.parent)
    return _sitting(command, folder, endpoint, before)


@pytest.fixture(params=["interrupted", "terminated"])
def stopped(request: pytest.FixtureRequest) -> Sitting:
    """Each of the sittings that did not come to the end."""
    sitting: Sitting = request.getfixturevalue(request.param)
    return sitting


def _num_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_a_stopped_run_says_how_to_go_on(stopped: Sitting) -> None:
    assert stopped.finished.code == 1
    assert stopped.summary["status"] == "interrupted"
    *_, last = stopped.finished.stderr.splitlines()
    assert "Interrupted" in last
    assert "--resume" in last


def test_a_stopped_run_has_saved_what_was_done(stopped: Sitting) -> None:
    rows = stopped.summary["trajectories"]
    assert 2 <= sum(row["steps"] for row in rows) < NUM_STEPS * len(rows)
    assert {row["error"] for row in rows} == {None}
    assert _num_lines(stopped.folder / "steps.jsonl") == sum(row["steps"] for row in rows)


def test_a_stopped_run_leaves_no_process_behind(stopped: Sitting, until: Until) -> None:
    until(lambda: not stopped.command.survivors(), "every process of the run has ended", timeout_s=20)


def test_a_resumed_run_ends_as_an_undisturbed_one(undisturbed: Sitting, resumed: Sitting) -> None:
    assert (undisturbed.finished.code, resumed.finished.code) == (0, 0), resumed.finished.stderr
    for name in ("steps.jsonl", "best_prompts.json"):
        assert (resumed.folder / name).read_bytes() == (undisturbed.folder / name).read_bytes()
    assert resumed.summary["status"] == "completed"
    assert resumed.summary["trajectories"] == undisturbed.summary["trajectories"]
    assert resumed.summary["llm"] == undisturbed.summary["llm"]


def test_a_resumed_run_is_the_same_run(interrupted: Sitting, terminated: Sitting, resumed: Sitting) -> None:
    for name in ("run_id", "started_at"):
        assert interrupted.summary[name] == terminated.summary[name] == resumed.summary[name]
    assert interrupted.summary["wall_s"] < terminated.summary["wall_s"] < resumed.summary["wall_s"]


def test_what_was_saved_is_not_paid_for_again(
    undisturbed: Sitting, interrupted: Sitting, terminated: Sitting, resumed: Sitting
) -> None:
    assert interrupted.paid <= undisturbed.paid
    assert terminated.paid <= undisturbed.paid
    assert resumed.paid <= undisturbed.paid
    for role, model in (("task", "task-model"), ("optimizer", "opt-model")):
        saved = [getattr(sitting.saved, role).requests for sitting in (interrupted, terminated, undisturbed)]
        num_paid, rest = (_num_calls(model, sitting.paid) for sitting in (undisturbed, resumed))
        assert 0 < saved[0] < saved[1] < saved[2] == num_paid
        assert rest == num_paid - saved[1]
    # What was paid for twice was under way when a signal came: at most one step's scoring for each trajectory.
    twice = (interrupted.paid + terminated.paid + resumed.paid) - undisturbed.paid
    assert sum(twice.values()) <= 2 * (2 * 3 * 20)


def _num_calls(model: str, paid: Counter[tuple[str, str]]) -> int:
    return sum(count for (asked, _), count in paid.items() if asked == model)


def test_resuming_a_completed_run_makes_no_call(
    endpoint: SimulatedEndpoint, config: Path, gpo: Gpo, undisturbed: Sitting
) -> None:
    folder, before = config.with_name("runs-undisturbed") / "run", len(endpoint.requests)
    again = _sitting(
        gpo.start("run", config, "--run-dir", folder, "--resume", cwd=config.parent), folder, endpoint, before
    )
    assert again.finished.code == 0
    assert not again.paid
    assert "Ray" not in again.finished.stderr
    for name in ("steps.jsonl", "best_prompts.json"):
        assert (again.folder / name).read_bytes() == (undisturbed.folder / name).read_bytes()
    assert again.summary["trajectories"] == undisturbed.summary["trajectories"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), ("--run-dir", "holds a run already", "add --resume")),
        (("--resume", "--set", "optimizer.steps=9"), ("optimizer.steps", "5", "9", "its own configuration")),
        (("--resume", "--set", "tasks.0.prompt=Think."), ("tasks[0].prompt", "'Think.'", "its own configuration")),
        (("--resume", "--set", "run.seeds=[0]"), ("run.seeds", "[0]", "its own configuration")),
    ],
)
def test_a_run_is_neither_overwritten_nor_changed_half_way(
    options: tuple[str, ...], words: tuple[str, ...], config: Path, undisturbed: Sitting
) -> None:
    folder = config.with_name("runs-undisturbed") / "run"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    finished = gpo_in_this_process("run", config, "--run-dir", folder, *options, cwd=config.parent)
    assert finished.code == 2
    (line,) = finished.stderr.splitlines()
    assert not [word for word in words if word not in line], line
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
