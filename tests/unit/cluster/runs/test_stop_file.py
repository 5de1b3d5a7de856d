from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from actors.folder import Folder
from cluster.comparing.compare import ComparisonFolder
from cluster.results.run_record import RunRecord, Status
from cluster.runs.run_folder import RunFolder
from cluster.runs.stop_file import STOP_FILE, request_stop, stop_requested
from gpo.errors import ConfigError
from tests.commands import gpo_in_this_process
from tests.unit.cluster.runs.test_run_folder import DATA, config, opened

if TYPE_CHECKING:
    from collections.abc import Sequence


def with_status(folder: Path, status: Status) -> None:
    RunFolder(Folder.at(str(folder))).save(RunRecord("run-1", started_at=0.0, status=status))


def files_in(folder: Path) -> Sequence[Path]:
    return sorted(folder.rglob("*"))


def test_a_requested_stop_is_found_until_the_run_is_resumed(new_folder: Callable[[], str]) -> None:
    folder = Folder.at(new_folder())
    opened(folder.url)
    assert not stop_requested([folder])
    request_stop(folder)
    assert folder.read(STOP_FILE) == b""
    assert stop_requested([Folder.at(new_folder()), folder])
    opened(folder.url, resume=True)
    assert not stop_requested([folder])


def test_a_folder_that_cannot_be_read_requests_no_stop(stopped_store: str) -> None:
    assert not stop_requested([Folder.at(stopped_store)])


def test_a_refused_resume_leaves_the_stop_file(tmp_path: Path) -> None:
    opened(tmp_path)
    request_stop(Folder.at(str(tmp_path)))
    with pytest.raises(ConfigError, match="resume with its own configuration"):
        opened(tmp_path, resume=True, optimizer={"steps": 3})
    assert (tmp_path / STOP_FILE).exists()


def test_resuming_a_comparison_removes_its_stop_file(tmp_path: Path) -> None:
    comparison, methods = ComparisonFolder(Folder.at(str(tmp_path))), {"one": config(), "two": config()}
    comparison.open(methods, DATA, run_id="run-1", resume=False)
    request_stop(comparison.folder)
    assert stop_requested([comparison.folder])
    comparison.open(methods, DATA, run_id="run-1", resume=True)
    assert not stop_requested([comparison.folder])


def test_the_command_says_what_happens(tmp_path: Path) -> None:
    opened(tmp_path)
    finished = gpo_in_this_process("stop", tmp_path, cwd=tmp_path)
    assert finished.code == 0
    assert finished.stdout.startswith(f"Stop requested. The process that works in {tmp_path}")
    assert (tmp_path / STOP_FILE).read_bytes() == b""


@pytest.mark.parametrize("name", ["nothing", "file"])
def test_a_folder_without_a_run_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    before = files_in(tmp_path)
    finished = gpo_in_this_process("stop", tmp_path / name, cwd=tmp_path)
    assert finished.code == 2
    assert "RUN_DIR" in finished.stderr
    assert files_in(tmp_path) == before


@pytest.mark.parametrize("status", ["completed", "interrupted", "budget_exhausted", "failed"])
def test_a_run_that_has_ended_is_refused(tmp_path: Path, status: Status) -> None:
    with_status(tmp_path, status)
    finished = gpo_in_this_process("stop", tmp_path, cwd=tmp_path)
    assert finished.code == 2
    assert f"has ended ({status}); name one that is working" in finished.stderr
    assert not (tmp_path / STOP_FILE).exists()


@pytest.mark.parametrize(
    ("status", "is_refused"), [(None, False), ("running", False), ("interrupted", False), ("completed", True)]
)
def test_only_a_completed_sweep_is_refused(tmp_path: Path, status: str | None, *, is_refused: bool) -> None:
    (tmp_path / "config.yaml").touch()
    if status is not None:
        (tmp_path / "sweep.json").write_text(json.dumps({"status": status}))
    finished = gpo_in_this_process("stop", tmp_path, cwd=tmp_path)
    assert (finished.code, (tmp_path / STOP_FILE).exists()) == ((2, False) if is_refused else (0, True))


def test_a_url_with_a_password_is_refused(tmp_path: Path) -> None:
    finished = gpo_in_this_process("stop", "s3://me:secret@host/run", cwd=tmp_path)
    assert finished.code == 2
    assert "secret" not in finished.stderr


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    opened(tmp_path)
    (tmp_path / STOP_FILE).mkdir()
    finished = gpo_in_this_process("stop", tmp_path, cwd=tmp_path)
    assert finished.code == 2
    assert "cannot be written" in finished.stderr
