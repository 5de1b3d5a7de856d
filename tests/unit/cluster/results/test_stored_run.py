from __future__ import annotations

import json
import os
import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from actors.checkpoints import CheckpointStore
from actors.folder import Folder
from actors.search import SearchKey
from cluster.cli.report import report
from cluster.cli.status import status
from cluster.results import outputs, stored_run
from cluster.results.run_record import RunRecord, Status
from cluster.results.status import (
    SILENT_AFTER_S,
    follow_status,
    print_status,
    run_status,
    status_document,
    status_lines,
)
from cluster.results.stored_run import RunReader
from cluster.runs.run_folder import RunFolder
from gpo.checkpoint import Checkpoint
from gpo.errors import ConfigError
from gpo.evaluation.evaluator import Evaluation
from gpo.models.protocol import Usage
from gpo.strategies.stopping import StoppingRule
from gpo.testing.samples import TRAJECTORIES

KEYS = (SearchKey("desk", 0), SearchKey("desk", 1), SearchKey("lab", 0))
ONE_STEP = TRAJECTORIES["one step"]
CONFIG = "optimizer:\n  steps: 2\n"


def with_tests(checkpoint: Checkpoint) -> Checkpoint:
    for end in (checkpoint.trajectory.initial, checkpoint.trajectory.best):
        checkpoint = checkpoint.with_test(end.prompt, Evaluation(end.score, Usage()))
    return checkpoint


def save_summary(folder: Folder, record: RunRecord) -> None:
    run = RunFolder(folder)
    run.write_summary(run.summary(record))


def stored(url: str, status: Status = "running", config: str = CONFIG, wall_s: float = 60.0) -> Folder:
    """A run of three trajectories: one has taken a step, one has only its initial prompt, one has nothing."""
    folder = Folder.at(url)
    record = RunRecord("run-1", time.time() - 100, keys=KEYS, status=status, config=config, wall_s=wall_s)
    store = CheckpointStore(folder / "trajectories")
    store.save(KEYS[0], Checkpoint(ONE_STEP, {}))
    store.save(KEYS[1], Checkpoint(TRAJECTORIES["only the initial prompt"], {}))
    save_summary(folder, record)
    folder.write("config.yaml", config.encode())
    return folder


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    return stored(str(tmp_path / "run") if request.param == "local" else f"memory://{tmp_path.name}/run")


def console(*, terminal: bool = False) -> Console:
    return Console(file=StringIO(), force_terminal=terminal, width=100, color_system=None)


def printed(on: Console) -> str:
    assert isinstance(on.file, StringIO)
    return on.file.getvalue()


def test_a_running_run_is_read(folder: Folder) -> None:
    run = RunReader(folder).read()
    assert (run.record.run_id, run.record.status, run.record.keys) == ("run-1", "running", KEYS)
    assert set(run.record.checkpoints) == set(KEYS[:2])
    assert run.record.num_steps == dict.fromkeys(KEYS, 2)
    assert abs(time.time() - run.changed_at) < 60
    # Newer than summary.json, which was written before any step.
    assert [row["steps"] for row in run.document()["trajectories"]] == [1, 0, 0]


def test_reading_again_loads_only_changed_checkpoints(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, loaded = RunReader(folder), []
    load = CheckpointStore.load

    def noted(store: CheckpointStore, key: SearchKey) -> Checkpoint | None:
        loaded.append(key)
        return load(store, key)

    monkeypatch.setattr(CheckpointStore, "load", noted)
    reader.read()
    assert reader.read().record.checkpoints[KEYS[1]].trajectory.steps == ()
    CheckpointStore(folder / "trajectories").save(KEYS[1], Checkpoint(ONE_STEP, {}))
    assert len(reader.read().record.checkpoints[KEYS[1]].trajectory.steps) == 1
    assert loaded == [*KEYS[:2], KEYS[1]]


def test_a_damaged_checkpoint_becomes_its_trajectorys_error(folder: Folder) -> None:
    folder.write("trajectories/desk/seed-0.msgpack", b"\x81")
    run = RunReader(folder).read()
    assert set(run.record.checkpoints) == {KEYS[1]}
    assert "damaged" in run.record.errors[KEYS[0]]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"trajectories": [3]}', b'{"status": "odd", "spent": 3}'])
def test_without_a_summary_a_run_is_read_from_its_checkpoints(folder: Folder, content: bytes) -> None:
    folder.write("summary.json", content)
    run = RunReader(folder).read()
    assert (run.record.keys, run.record.status) == (KEYS[:2], "pending")
    assert len(run.record.checkpoints[KEYS[0]].trajectory.steps) == 1


def test_steps_are_unknown_where_they_depend_on_data(tmp_path: Path) -> None:
    run = RunReader(stored(str(tmp_path), config="optimizer: {steps: null, epochs: 3}\n")).read()
    status = run_status(run, time.time())
    assert (status.of_steps, status.left_s, status.steps) == (None, None, 1)


@pytest.mark.parametrize("name", ["", "nothing"])
def test_a_folder_without_a_run_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        RunReader(Folder.at(str(tmp_path / name))).read()
    assert list(tmp_path.iterdir()) == []


def test_a_status_has_progress_scores_and_age(folder: Folder) -> None:
    run = RunReader(folder).read()
    status = run_status(run, run.changed_at + 7)
    assert (status.state, status.steps, status.of_steps) == ("running", 1, 6)
    assert (status.age_s, status.left_s) == (7, 5 * 60.0)
    document = status_document(status)
    assert document["best"] == {"desk": 0.9}
    assert json.loads(json.dumps(document))["trajectories"][0] == {
        "task": "desk", "seed": 0, "steps": 1, "of_steps": 2, "initial": 0.5, "best": 0.9,
        "best_interval": {"level": 0.9, "low": 0.2193, "high": 0.9965}, "best_scored": 1,
        "tried": 3, "done": False, "stopped_by": None, "error": None,
    }  # fmt: skip
    assert "step 1 of 6" in status_lines(status)[0]


def test_a_run_without_changes_is_silent(folder: Folder) -> None:
    run = RunReader(folder).read()
    status = run_status(run, run.changed_at + SILENT_AFTER_S + 1)
    assert (status.state, status.is_well, status.is_under_way) == ("silent", False, False)
    assert "--resume" in status_lines(status)[-1]
    run.record.status = "completed"
    assert run_status(run, run.changed_at + 1e6).state == "completed"


def test_a_trajectory_that_stopped_early_is_done_and_says_why(tmp_path: Path) -> None:
    folder = stored(str(tmp_path), config="optimizer: {steps: 9}\nstop: {target: 0.01, patience: null}\n")
    CheckpointStore(folder / "trajectories").save(KEYS[0], with_tests(Checkpoint(ONE_STEP, {})))
    run = RunReader(folder).read()
    status = run_status(run, time.time())
    assert [row.done for row in status.trajectories] == [True, False, False]
    # The second trajectory has only its initial prompt, which reaches the target before the first step.
    assert status.trajectories[0].stopped_by == "reached the target 0.01"
    assert [row.of_steps for row in status.trajectories] == [1, 0, 9]
    assert run.document()["trajectories"][0]["stopped_by"] == "reached the target 0.01"
    on = console()
    print_status(RunReader(folder), on, as_document=False)
    assert "done: reached the target 0.01" in " ".join(printed(on).split())


@pytest.mark.parametrize("stop", ["3", "{target: x}", "{target: 7}", "{patience: [1]}", "{other: 1}", "null"])
def test_a_status_survives_a_damaged_stopping_rule(stop: str, tmp_path: Path) -> None:
    folder = stored(str(tmp_path), config=f"optimizer: {{steps: 2}}\nstop: {stop}\n")
    assert RunReader(folder).read().record.stopping == StoppingRule()


@pytest.mark.parametrize(("state", "code"), [("completed", 0), ("running", 0), ("failed", 1), ("interrupted", 1)])
def test_exit_codes_follow_the_state(tmp_path: Path, state: Status, code: int) -> None:
    stored(str(tmp_path), status=state)
    assert status(str(tmp_path), as_json=True) == code


def test_watching_ends_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = stored(str(tmp_path))
    looks: list[float] = []

    def go_on(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            CheckpointStore(folder / "trajectories").save(KEYS[2], Checkpoint(ONE_STEP, {}))
        if len(looks) == 3:
            stored(str(tmp_path), status="completed")

    monkeypatch.setattr(time, "sleep", go_on)
    on = console()
    last = follow_status(RunReader(folder), on, as_document=True, every_s=3.0)
    assert last.state == "completed"
    documents: list[dict[str, Any]] = [json.loads(line) for line in printed(on).splitlines()]
    assert [(one["state"], one["steps"]) for one in documents] == [("running", 1), ("running", 2), ("completed", 2)]
    assert looks == [3.0] * 3


@pytest.mark.parametrize("terminal", [True, False])
def test_a_status_is_shown_on_any_console(folder: Folder, terminal: bool) -> None:
    on = console(terminal=terminal)
    print_status(RunReader(folder), on, as_document=False)
    for words in ("run-1: running", "step 1 of 6", "desk", "1/2", "90.0"):
        assert words in printed(on)
    folder.write("summary.json", b"{}")
    save_summary(folder, RunRecord("run-1", 0.0, keys=KEYS, status="failed"))
    assert follow_status(RunReader(folder), on, as_document=False, every_s=1.0).state == "failed"


def test_a_report_can_be_written_during_a_run(folder: Folder) -> None:
    assert report(folder.url) == 0
    page = (folder.read("report.html") or b"").decode()
    assert "run-1" in page
    assert "steps: 2" in page


def test_partial_files_do_not_count_as_changes(tmp_path: Path) -> None:
    folder = stored(str(tmp_path))
    partial = tmp_path / ".summary.json.1.partial"
    partial.touch()
    os.utime(partial, (time.time() + 1000,) * 2)
    assert RunReader(folder).read().changed_at < time.time() + 500


@pytest.mark.parametrize(
    "config",
    [
        "x: 2001-99-99",
        "[" * 3_000,
        "!!int []",
        "- 1",
        "optimizer: 3",
        "optimizer: [1]",
        "optimizer: {steps: .inf}",
        f"optimizer: {{steps: 0x{'f' * 5_000}}}",
        "optimizer: {steps: -1}",
        "\x00",
    ],
)
def test_a_status_survives_any_configuration_file(config: str, tmp_path: Path) -> None:
    folder = stored(str(tmp_path / "run"), config=config)
    assert RunReader(folder).read().record.num_steps == {}
    for as_document in (False, True):
        print_status(RunReader(folder), console(), as_document)


SPENT = {"calls": 3, "tokens": 40, "usd": 0.5}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("started_at", "wall_s", "spent") for value in ("x", None, [], 10**400, True)),
        *(("wall_s", value) for value in (float("inf"), float("nan"), -1.0)),
        *(("spent", {**SPENT, name: value}) for name in SPENT for value in (float("inf"), float("nan"), -1, "x", {})),
        ("started_at", "0001-01-01T00:00:00+23:59"),
        ("trajectories", [{"task": "desk", "seed": float("inf")}]),
        ("trajectories", [{"task": "desk", "seed": 0, "error": {"a": "\x1b[2J"}}]),
        ("trajectories", [3]),
        ("status", ["running"]),
        ("run_id", {"a": 1}),
        ("ended_by", [1]),
    ],
    ids=lambda part: repr(part)[:30],
)
def test_a_status_survives_any_summary_file(name: str, value: object, tmp_path: Path) -> None:
    folder = stored(str(tmp_path / "run"))
    document = json.loads(folder.read("summary.json") or b"")
    folder.write("summary.json", json.dumps({**document, "spent": SPENT, name: value}).encode())
    for as_document in (False, True):
        on = console()
        print_status(RunReader(folder), on, as_document)
        assert "desk" in printed(on)
    # Resuming survives it, too.
    record = RunRecord("run-2", 0.0, keys=KEYS)
    RunFolder(folder)._restore(record)
    assert set(record.checkpoints) == set(KEYS[:2])
    assert 0.0 <= record.wall_s < 1e9
    assert record.reported.calls in (0, 3)


def test_control_characters_from_a_folder_are_removed(tmp_path: Path) -> None:
    title, clear = "\x1b]0;pwned\x07", "\x1b[2J\x9b2J"
    folder = stored(str(tmp_path / "run"), status="failed")
    document = json.loads(folder.read("summary.json") or b"")
    document.update(run_id=f"run{title}", ended_by=f"SIGINT{clear}")
    document["trajectories"] = [{"task": f"desk{clear}", "seed": 7, "error": f"ModelRefused: {title}{clear}no"}]
    folder.write("summary.json", json.dumps(document).encode())
    CheckpointStore(folder / "trajectories").save(SearchKey(f"lab{clear}", 3), Checkpoint(ONE_STEP, {}))
    (tmp_path / "run" / "trajectories" / f"ill{clear}").mkdir()
    (tmp_path / "run" / "trajectories" / f"ill{clear}" / "seed-0.msgpack").write_bytes(b"no checkpoint")
    for as_document in (False, True):
        on = console()
        print_status(RunReader(folder), on, as_document)
        shown = printed(on)
        assert "ModelRefused" in shown
        assert not {"\x1b", "\x07", "\x9b"} & set(shown), shown


def test_the_summary_saves_computing_only_where_it_is_about_the_checkpoint(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = RunReader(folder)
    record = reader.read().record
    save_summary(folder, record)
    written = json.loads(folder.read("summary.json") or b"")
    computed: list[Checkpoint] = []
    compute = outputs.best_prompt
    monkeypatch.setattr(stored_run, "best_prompt", lambda one: computed.append(one) or compute(one))

    def described() -> Any:
        computed.clear()
        return reader.read().document()["trajectories"]

    assert (described(), computed) == (written["trajectories"], [])
    for change in ({"steps": 7}, {"best": {**written["trajectories"][0]["best"], "val_interval": [1]}}, {"best": 3}):
        rows = [{**written["trajectories"][0], **change}, *written["trajectories"][1:]]
        folder.write("summary.json", json.dumps({**written, "trajectories": rows}).encode())
        assert (described(), computed) == (written["trajectories"], [record.checkpoints[KEYS[0]]])
