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

if TYPE_CHECKING:
    from tests.e2e.conftest import Finished, Gpo, Started, Until, WriteConfig

NUM_STEPS = 4
# Some seconds between two steps, so that a signal after one falls into the next.
SLOW = Behaviour(latency_s=0.1)


@dataclass(frozen=True)
class Sitting:
    """One command over a run's folder, what it left there, and which calls it paid for."""

    command: Started
    finished: Finished
    folder: Path
    paid: Counter[tuple[str, str]]

    @property
    def summary(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "summary.json").read_text(encoding="utf-8")))


def _sitting(command: Started, folder: Path, endpoint: SimulatedEndpoint, before: int) -> Sitting:
    finished = command.finish()
    paid = Counter((call.model, call.content) for call in endpoint.requests[before:] if call.model and call.status == 200)
    # As it was then: a later sitting goes on in the same folder.
    kept = folder.with_name(f"{folder.name}-{before}")
    kept.mkdir()
    for path in folder.iterdir():
        if path.is_file():
            (kept / path.name).write_bytes(path.read_bytes())
    return Sitting(command, finished, kept, paid)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[SimulatedEndpoint]:
    with SimulatedEndpoint() as running:
        yield running


@pytest.fixture(scope="module")
def config(endpoint: SimulatedEndpoint, write_config: WriteConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    return write_config(
        folder, endpoint.base_url, optimizer={"steps": NUM_STEPS}, models={"task": {"max_concurrency": 8}}
    )


@pytest.fixture(scope="module")
def undisturbed(endpoint: SimulatedEndpoint, config: Path, gpo: Gpo) -> Sitting:
    folder, before = config.with_name("undisturbed"), len(endpoint.requests)
    return _sitting(gpo.start("run", config, "--run-dir", folder, cwd=config.parent), folder, endpoint, before)


@pytest.fixture(scope="module")
def interrupted(endpoint: SimulatedEndpoint, config: Path, gpo: Gpo, until: Until, undisturbed: Sitting) -> Sitting:
    folder, before = config.with_name("interrupted"), len(endpoint.requests)
    endpoint.behaviour = SLOW
    command = gpo.start("run", config, "--run-dir", folder, cwd=config.parent)
    until(lambda: _num_lines(folder / "steps.jsonl") >= 2, "two steps are done")
    command.interrupt()
    sitting = _sitting(command, folder, endpoint, before)
    endpoint.behaviour = Behaviour()
    return sitting


@pytest.fixture(scope="module")
def resumed(endpoint: SimulatedEndpoint, config: Path, gpo: Gpo, interrupted: Sitting) -> Sitting:
    folder, before = config.with_name("interrupted"), len(endpoint.requests)
    command = gpo.start("run", config, "--run-dir", folder, "--resume", cwd=config.parent)
    return _sitting(command, folder, endpoint, before)


def _num_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_an_interrupted_run_says_how_to_go_on(interrupted: Sitting) -> None:
    assert interrupted.finished.code == 1
    assert interrupted.summary["status"] == "interrupted"
    *_, last = interrupted.finished.stderr.splitlines()
    assert "Interrupted" in last
    assert "--resume" in last


def test_an_interrupted_run_stopped_in_the_middle(interrupted: Sitting) -> None:
    rows = interrupted.summary["trajectories"]
    assert 2 <= sum(row["steps"] for row in rows) < NUM_STEPS * len(rows)
    assert {row["error"] for row in rows} == {None}
    assert _num_lines(interrupted.folder / "steps.jsonl") == sum(row["steps"] for row in rows)


def test_an_interrupted_run_leaves_no_process_behind(interrupted: Sitting, until: Until) -> None:
    until(lambda: not interrupted.command.survivors(), "every process of the run has ended", timeout_s=20)


def test_a_resumed_run_ends_as_an_undisturbed_one(undisturbed: Sitting, resumed: Sitting) -> None:
    assert (undisturbed.finished.code, resumed.finished.code) == (0, 0), resumed.finished.stderr
    for name in ("steps.jsonl", "best_prompts.json"):
        assert (resumed.folder / name).read_bytes() == (undisturbed.folder / name).read_bytes()
    assert resumed.summary["status"] == "completed"
    assert resumed.summary["trajectories"] == undisturbed.summary["trajectories"]
    assert resumed.summary["llm"] == undisturbed.summary["llm"]


def test_a_resumed_run_is_the_same_run(interrupted: Sitting, resumed: Sitting) -> None:
    for name in ("run_id", "started_at"):
        assert resumed.summary[name] == interrupted.summary[name]
    assert resumed.summary["wall_s"] > interrupted.summary["wall_s"]


def test_what_an_interrupted_run_had_saved_is_not_paid_for_again(
    undisturbed: Sitting, interrupted: Sitting, resumed: Sitting
) -> None:
    assert resumed.paid <= undisturbed.paid
    assert interrupted.paid <= undisturbed.paid
    for role, model in (("task", "task-model"), ("optimizer", "opt-model")):
        saved = interrupted.summary["llm"][role]["requests"]
        all_calls, rest = (sum(_of(model, sitting.paid).values()) for sitting in (undisturbed, resumed))
        assert saved > 0
        assert rest == all_calls - saved
    # What is left over was under way when the signal came: at most one step's scoring for each trajectory.
    again = (interrupted.paid + resumed.paid) - undisturbed.paid
    assert sum(again.values()) <= 2 * 3 * 20


def _of(model: str, paid: Counter[tuple[str, str]]) -> Counter[tuple[str, str]]:
    return Counter({call: count for call, count in paid.items() if call[0] == model})


def test_resuming_a_completed_run_makes_no_call(
    endpoint: SimulatedEndpoint, config: Path, gpo: Gpo, undisturbed: Sitting
) -> None:
    folder, before = config.with_name("undisturbed"), len(endpoint.requests)
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
        (("--resume", "--set", "optimizer.steps=9"), ("optimizer.steps", "4", "9", "its own configuration")),
        (("--resume", "--set", "tasks.0.prompt=Think."), ("tasks[0].prompt", "'Think.'", "its own configuration")),
        (("--resume", "--set", "run.seeds=[0]"), ("run.seeds", "[0]", "its own configuration")),
    ],
)
def test_a_run_is_neither_overwritten_nor_changed_half_way(
    options: tuple[str, ...], words: tuple[str, ...], config: Path, gpo: Gpo, undisturbed: Sitting
) -> None:
    folder = config.with_name("undisturbed")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    finished = gpo("run", config, "--run-dir", folder, *options, cwd=config.parent)
    assert finished.code == 2
    (line,) = finished.stderr.splitlines()
    assert not [word for word in words if word not in line], line
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_sigterm_stops_a_run_just_as_well_and_the_newest_run_is_resumed(
    endpoint: SimulatedEndpoint, config: Path, gpo: Gpo, until: Until
) -> None:
    runs = config.parent / "runs"
    endpoint.behaviour = SLOW
    command = gpo.start("run", config, "--set", "run.seeds=[5]", cwd=config.parent)
    until(lambda: any(_num_lines(path) for path in runs.glob("*/steps.jsonl")), "a step is done")
    command.process.send_signal(signal.SIGTERM)
    finished = command.finish()
    assert finished.code == 1
    assert "--resume" in finished.stderr
    (folder,) = runs.iterdir()
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["status"] == "interrupted"

    endpoint.behaviour = Behaviour()
    resumed = gpo("run", config, "--set", "run.seeds=[5]", "--resume", cwd=config.parent)
    assert resumed.code == 0, resumed.stderr
    assert list(runs.iterdir()) == [folder]
    again = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert (again["run_id"], again["status"]) == (summary["run_id"], "completed")
