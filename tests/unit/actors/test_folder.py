from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from actors.folder import Folder


@pytest.fixture
def folder(new_folder: Callable[[], str]) -> Folder:
    return Folder(new_folder())


def test_reads_what_was_written(folder: Folder) -> None:
    folder.write("results.json", b"{}")
    (folder / "deep").write("er/file", b"\0")
    assert folder.read("results.json") == b"{}"
    assert folder.read("deep/er/file") == b"\0"
    assert folder.names() == ["deep", "results.json"]


def test_a_write_replaces_the_whole_file(folder: Folder) -> None:
    folder.write("file", b"a long content")
    folder.write("file", b"short")
    assert folder.read("file") == b"short"
    assert folder.names() == ["file"]


def test_missing_files_and_folders_are_empty(folder: Folder) -> None:
    assert folder.read("nothing") is None
    assert (folder / "nowhere").names() == []


def test_a_pickled_folder_is_usable(folder: Folder) -> None:
    folder.write("file", b"content")
    copy = pickle.loads(pickle.dumps(folder))  # noqa: S301
    assert copy == folder
    assert copy.read("file") == b"content"


def test_a_file_is_created_once(folder: Folder) -> None:
    assert folder.create("deep/file", b"first")
    assert not folder.create("deep/file", b"second")
    assert folder.read("deep/file") == b"first"
    assert (folder / "deep").names() == ["file"]


def test_one_of_many_concurrent_creates_succeeds(folder: Folder) -> None:
    with ThreadPoolExecutor(8) as threads:
        created = list(threads.map(lambda number: folder.create("file", b"%d" % number), range(8)))
    assert created.count(True) == 1
    assert folder.read("file") == b"%d" % created.index(True)


def test_a_copy_keeps_the_content_when_the_file_is_replaced(folder: Folder) -> None:
    folder.write("file", b"one")
    folder.copy("file", "before")
    folder.write("file", b"two")
    assert (folder.read("before"), folder.read("file")) == (b"one", b"two")
    folder.copy("file", "before")
    assert folder.read("before") == b"two"
    folder.copy("nothing", "before")
    assert folder.read("before") == b"two"
    assert folder.names() == ["before", "file"]


def test_a_file_can_be_removed(folder: Folder) -> None:
    folder.write("file", b"content")
    folder.remove("file")
    folder.remove("file")
    assert folder.names() == []


def test_names_include_files_of_other_processes(folder: Folder) -> None:
    other = Folder(folder.url)
    folder.write("mine", b"")
    assert other.names() == ["mine"]
    folder.write("another", b"")
    assert other.names() == ["another", "mine"]


def test_a_file_system_without_links_is_supported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    folder = Folder(str(tmp_path))
    assert folder.create("file", b"first")
    assert not folder.create("file", b"second")
    folder.copy("file", "before")
    assert folder.read("before") == b"first"


def test_an_unreachable_store_is_an_os_error(stopped_store: str) -> None:
    unreachable = Folder(stopped_store)
    for action in (lambda: unreachable.read("file"), unreachable.names, lambda: unreachable.write("file", b"")):
        with pytest.raises(OSError, match="Could not connect to the endpoint"):
            action()


def test_an_unresponsive_store_is_an_os_error(stopped_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = Folder(stopped_store)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr("actors.folder.REPLY_TIMEOUT_S", 0.5)
        for action in (lambda: silent.read("file"), silent.names, lambda: silent.write("file", b"")):
            with pytest.raises(OSError, match=r"no answer within 0\.5 s"):
                action()


def test_a_write_is_retried_until_the_store_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    folder, failures = Folder(f"memory://{uuid4().hex}"), [OSError("away"), OSError("away")]
    files, _ = folder._location
    pipe_file = files.pipe_file

    def sometimes(*arguments: object, **options: object) -> None:
        if failures:
            raise failures.pop()
        pipe_file(*arguments, **options)

    monkeypatch.setattr(files, "pipe_file", sometimes)
    folder.write("file", b"content")
    assert folder.read("file") == b"content"


def test_paths_are_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (Folder("runs") / "one").path("summary.json") == str(tmp_path / "runs/one/summary.json")
    assert Folder("memory://runs/").path("summary.json") == "memory://runs/summary.json"
    assert Folder("memory://runs").local is None


def test_a_failed_write_leaves_the_old_content_and_no_other_file(
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
