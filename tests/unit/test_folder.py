from __future__ import annotations

import os
import pickle
from pathlib import Path
from uuid import uuid4

import pytest

from actors.checkpoint_store import CheckpointStore
from actors.folder import Folder
from actors.search import SearchKey
from gpo.checkpoint import Checkpoint
from gpo.errors import CheckpointError
from gpo.testing.samples import TRAJECTORIES

KEY = SearchKey("task", 3)
CHECKPOINT = Checkpoint(TRAJECTORIES["one step"], test={})


@pytest.fixture(params=["path", "file://", "memory://"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    kind = request.param
    return Folder({"path": str(tmp_path), "file://": f"file://{tmp_path}"}.get(kind, f"memory://{uuid4().hex}"))


def test_reads_what_was_written(folder: Folder) -> None:
    folder.write("results.json", b"{}")
    (folder / "deep").write("er/file", b"\0")
    assert folder.read("results.json") == b"{}"
    assert folder.read("deep/er/file") == b"\0"
    assert folder.names() == ["deep", "results.json"]


def test_a_later_content_replaces_an_earlier_one(folder: Folder) -> None:
    folder.write("file", b"a long content")
    folder.write("file", b"short")
    assert folder.read("file") == b"short"
    assert folder.names() == ["file"]


def test_what_is_not_there_is_none(folder: Folder) -> None:
    assert folder.read("nothing") is None
    assert (folder / "nowhere").names() == []


def test_travels_by_its_url_alone(folder: Folder) -> None:
    folder.write("file", b"content")
    copy = pickle.loads(pickle.dumps(folder))  # noqa: S301
    assert copy == folder
    assert copy.read("file") == b"content"


def test_paths_are_what_a_user_would_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (Folder("runs") / "one").path("summary.json") == str(tmp_path / "runs/one/summary.json")
    assert Folder("memory://runs/").path("summary.json") == "memory://runs/summary.json"
    assert Folder("memory://runs").local is None


def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(str(tmp_path))
    folder.write("file", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        folder.write("file", b"new")
    assert folder.read("file") == b"old"
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208


def test_a_folder_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        Folder(str(tmp_path / "file" / "run")).write("summary.json", b"{}")


def test_checkpoints_are_found_by_task_and_seed(folder: Folder) -> None:
    store = CheckpointStore(folder)
    assert store.load(KEY) is None
    store.save(KEY, CHECKPOINT)
    assert store.load(KEY) == CHECKPOINT
    assert store.load(SearchKey("task", 4)) is None
    assert folder.read("task/seed-3.msgpack") is not None


def test_a_damaged_checkpoint_is_named(folder: Folder) -> None:
    folder.write("task/seed-3.msgpack", b"\xc1")
    with pytest.raises(CheckpointError, match=r"task/seed-3\.msgpack: the checkpoint is damaged"):
        CheckpointStore(folder).load(KEY)


def test_a_checkpoint_that_cannot_be_read_or_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "task").touch()
    store = CheckpointStore(Folder(str(tmp_path)))
    with pytest.raises(CheckpointError, match=r"seed-3\.msgpack cannot be written"):
        store.save(KEY, CHECKPOINT)
    with pytest.raises(CheckpointError, match=r"seed-3\.msgpack cannot be read"):
        store.load(KEY)
