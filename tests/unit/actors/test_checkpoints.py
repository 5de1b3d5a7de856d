from __future__ import annotations

import logging
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgpack
import pytest

from actors.checkpoints import CheckpointStore
from actors.folder import Folder
from actors.lease import Fence, LeaseLost
from actors.search import SearchKey
from gpo.checkpoint import Checkpoint, decode, encode
from gpo.errors import CheckpointError, StorageError
from gpo.testing.samples import TRAJECTORIES

KEY = SearchKey("task", 3)
FIRST = Checkpoint(TRAJECTORIES["one step"], test={})
SECOND = Checkpoint(TRAJECTORIES["several steps, with ties"], test={})
NAME = "task/seed-3.msgpack"
BEFORE = "task/seed-3.previous"


@pytest.fixture
def store(new_folder: Callable[[], str]) -> CheckpointStore:
    return CheckpointStore(Folder(new_folder()))


def test_checkpoints_are_found_by_task_and_seed(store: CheckpointStore) -> None:
    assert store.load(KEY) is None
    store.save(KEY, FIRST)
    assert store.load(KEY) == FIRST
    assert store.load(SearchKey("task", 4)) is None
    assert store.folder.read(NAME) is not None


def test_the_previous_checkpoint_is_kept(store: CheckpointStore) -> None:
    for checkpoint in (FIRST, SECOND, FIRST):
        store.save(KEY, checkpoint)
    assert store.load(KEY) == FIRST
    assert decode(store.folder.read(BEFORE) or b"") == SECOND
    assert (store.folder / "task").names() == ["seed-3.msgpack", "seed-3.previous"]


@pytest.mark.parametrize("damaged", [b"", b"\xc1", encode(SECOND)[:-9], encode(SECOND).replace(b"Reason", b"Season")])
def test_the_previous_checkpoint_replaces_a_damaged_one(
    store: CheckpointStore, damaged: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    store.save(KEY, FIRST)
    store.save(KEY, SECOND)
    store.folder.write(NAME, damaged)

    with caplog.at_level(logging.WARNING):
        assert store.load(KEY) == FIRST
    assert f"{store.folder.path(NAME)}: the checkpoint is damaged" in caplog.text

    # Loading modifies no file, because another process may be working here.
    assert store.folder.read(NAME) == damaged

    # A damaged file never replaces the intact previous one.
    store.save(KEY, SECOND)
    store.folder.write(NAME, damaged)
    assert store.load(KEY) == FIRST


def test_two_damaged_checkpoints_are_an_error_with_a_remedy(store: CheckpointStore) -> None:
    message = r"task/seed-3\.msgpack: the checkpoint is damaged.*; restore the file from a copy, or remove it"
    store.folder.write(NAME, encode(SECOND)[:-9])
    with pytest.raises(CheckpointError, match=message):
        store.load(KEY)
    store.folder.write(BEFORE, encode(FIRST)[:-9])
    with pytest.raises(CheckpointError, match=message):
        store.load(KEY)


def test_a_checkpoint_of_another_search_is_refused(store: CheckpointStore) -> None:
    store.save(KEY, FIRST)
    store.folder.copy(NAME, "other/seed-3.msgpack")
    with pytest.raises(
        CheckpointError, match=r"other/seed-3\.msgpack: the checkpoint belongs to task/3, not to other/3"
    ):
        store.load(SearchKey("other", 3))


def test_a_checkpoint_of_another_version_is_not_replaced_by_the_previous_one(store: CheckpointStore) -> None:
    store.folder.write(BEFORE, encode(FIRST))
    store.folder.write(NAME, msgpack.packb({"schema": 99}))
    with pytest.raises(CheckpointError, match=r"seed-3\.msgpack: the checkpoint has schema version 99"):
        store.load(KEY)


def test_nothing_is_written_after_the_lease_was_lost(store: CheckpointStore) -> None:
    lease_files = store.folder / "lease"
    fenced = CheckpointStore(store.folder, Fence(lease_files, 1))
    lease_files.write("000001.json", b"{}")
    fenced.save(KEY, FIRST)

    lease_files.write("000002.json", b"{}")
    with pytest.raises(LeaseLost, match="was taken over by another process"):
        fenced.save(KEY, SECOND)
    assert store.load(KEY) == FIRST
    assert store.folder.read(BEFORE) is None


def test_an_unreachable_store_is_named(stopped_store: str) -> None:
    store = CheckpointStore(Folder(stopped_store))
    with pytest.raises(StorageError, match=r"s3://bucket/folder/task/seed-3\.msgpack cannot be written: Endpoint"):
        store.save(KEY, FIRST)
    with pytest.raises(StorageError, match=r"s3://bucket/folder/task/seed-3\.msgpack cannot be read: Endpoint"):
        store.load(KEY)


@pytest.mark.usefixtures("object_store")
def test_a_missing_bucket_is_reported_without_retries() -> None:
    with pytest.raises(StorageError, match="bucket does not exist"):
        CheckpointStore(Folder("s3://missing-bucket/folder")).save(KEY, FIRST)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Limits the size of files, so that longer writes fail halfway, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def mounted(*arguments: str, at: Path) -> Iterator[None]:
    at.mkdir(exist_ok=True)
    if subprocess.run(["mount", *arguments, str(at)], capture_output=True).returncode:
        pytest.skip("file systems may not be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


def test_an_incomplete_write_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    store = CheckpointStore(Folder(str(tmp_path)))
    store.save(KEY, FIRST)
    with files_of_at_most(len(encode(SECOND)) - 1), pytest.raises(StorageError, match="File too large") as failed:
        store.save(KEY, SECOND)
    assert not isinstance(failed.value, CheckpointError)  # which would end one trajectory only
    assert store.load(KEY) == FIRST
    assert (store.folder / "task").names() == ["seed-3.msgpack", "seed-3.previous"]
