from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from actors import lease as lease_module
from actors.folder import Folder
from actors.lease import TERM_S, Lease, LeaseHeld, LeaseLost, Leases
from gpo.runtime.process import ProcessIdentity
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def _short_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "SETTLE_S", 0.2)


@pytest.fixture
def folder(new_folder: Callable[[], str]) -> Folder:
    return Folder(new_folder())


@pytest.fixture
def take_expired(monkeypatch: pytest.MonkeyPatch) -> Callable[[Folder], Lease]:
    """Takes a lease that expires at once."""

    def take(folder: Folder) -> Lease:
        with monkeypatch.context() as patch:
            patch.setattr(lease_module, "TERM_S", 0.0)
            return Lease.take(folder)

    return take


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[str]]:
    """Another process of this machine, which is running."""
    process = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def take_as(stranger: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Lease]:
    """Takes a lease in the name of the other process."""

    def take(folder: Folder, **changes: str) -> Lease:
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: stranger.pid)
            identity = replace(ProcessIdentity.current(), **changes)  # type: ignore[arg-type]
        with monkeypatch.context() as patch:
            patch.setattr(ProcessIdentity, "current", lambda: identity)
            return Lease.take(folder)

    return take


def test_a_held_folder_is_refused_with_the_name_of_its_holder(folder: Folder) -> None:
    before = time.time()
    lease = Lease.take(folder)
    with pytest.raises(LeaseHeld) as caught:
        Lease.take(folder)
    message = f"{folder.url!r} is in use by process {os.getpid()} on {os.uname().nodename}, which took its lease at "
    assert str(caught.value).startswith(message)
    assert TERM_S - 5 < lease._record.until - before < TERM_S + 5
    lease.fence.check()


def test_a_released_lease_can_be_taken_at_once(folder: Folder) -> None:
    first = Lease.take(folder)
    first.release()
    second = Lease.take(folder)
    second.fence.check()
    assert second.fence.number == first.fence.number + 1
    assert len(second.fence.folder.names()) == 1
    with pytest.raises(LeaseLost):
        first.fence.check()


def test_an_expired_lease_can_be_taken_over(folder: Folder, take_expired: Callable[[Folder], Lease]) -> None:
    silent = take_expired(folder)
    silent.fence.check()  # no process has taken it over yet
    taken = Lease.take(folder)
    for action in (silent.fence.check, silent.renew, silent.release):
        with pytest.raises(LeaseLost, match=rf"was taken over by process {os.getpid()} on .* at \d{{4}}-.*Z"):
            action()
    taken.renew()
    with pytest.raises(LeaseHeld):
        Lease.take(folder)


def test_a_renewed_lease_is_valid_again(folder: Folder, take_expired: Callable[[Folder], Lease]) -> None:
    lease = take_expired(folder)
    lease.renew()
    with pytest.raises(LeaseHeld):
        Lease.take(folder)


def test_a_late_renewal_has_no_effect(folder: Folder, take_expired: Callable[[Folder], Lease]) -> None:
    silent = take_expired(folder)
    taken = Lease.take(folder)
    silent._write()  # it was suspended between its check and this write
    taken.fence.check()
    with pytest.raises(LeaseLost):
        silent.fence.check()


def test_a_removed_lease_is_lost(folder: Folder) -> None:
    lease = Lease.take(folder)
    lease.fence.folder.remove("000001.json")
    with pytest.raises(LeaseLost, match="was removed"):
        lease.fence.check()


def test_the_lease_of_a_dead_process_of_this_machine_can_be_taken_at_once(
    folder: Folder, stranger: subprocess.Popen[str], take_as: Callable[..., Lease]
) -> None:
    take_as(folder)
    with pytest.raises(LeaseHeld, match=f"process {stranger.pid} "):
        Lease.take(folder)
    stranger.kill()
    stranger.wait()
    Lease.take(folder)


def test_the_lease_of_a_process_of_another_machine_must_expire(
    folder: Folder, stranger: subprocess.Popen[str], take_as: Callable[..., Lease]
) -> None:
    take_as(folder, host="elsewhere", space="another/space")
    stranger.kill()
    stranger.wait()
    with pytest.raises(LeaseHeld, match=f"process {stranger.pid} on elsewhere"):
        Lease.take(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"holder": 3}', b"\xff"])
def test_a_damaged_lease_can_be_taken_over(tmp_path: Path, content: bytes) -> None:
    folder = Folder(str(tmp_path))
    (folder / ".lease").write("000007.json", content)
    assert Lease.take(folder).fence.number == 8


def test_other_files_are_ignored(folder: Folder) -> None:
    (folder / ".lease").write("000001.json.partial", b"")
    (folder / ".lease").write("note.txt", b"")
    assert Lease.take(folder).fence.number == 1


def test_one_of_many_concurrent_processes_gets_the_lease(folder: Folder) -> None:
    assert len(contest(folder)) == 1


class Forgetful(MemoryFileSystem):
    """A store that overwrites files that should only be created."""

    protocol = "forgetful"
    store: dict[str, object] = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: object) -> None:
        super().pipe_file(path, value, mode="overwrite", **kwargs)


def test_one_of_many_gets_the_lease_in_a_store_without_conditional_writes() -> None:
    fsspec.register_implementation("forgetful", Forgetful, clobber=True)
    folder = Folder(f"forgetful://{uuid4().hex}")
    assert folder.create("file", b"")
    assert folder.create("file", b"")
    assert len(contest(folder)) == 1


def contest(folder: Folder) -> list[Lease]:
    """The leases that eight concurrent attempts get."""
    barrier = threading.Barrier(8)

    def attempt(_: int) -> Lease | None:
        barrier.wait()
        try:
            return Lease.take(folder)
        except LeaseHeld:
            return None

    with ThreadPoolExecutor(8) as threads:
        return [lease for lease in threads.map(attempt, range(8)) if lease is not None]


def test_leases_are_renewed_and_finally_released(folder: Folder) -> None:
    with Leases(renewed_every_s=0.01) as leases:
        leases.take(folder)
        leases.take(folder)
        fence = leases.fence(folder)
        assert fence is not None
        first = fence.folder.read("000001.json")
        wait_until(lambda: fence.folder.read("000001.json") != first)
        leases.require_held()
        assert leases.fence(folder / "below") is None
    Lease.take(folder)


def test_a_lost_lease_is_noticed_and_not_renewed(folder: Folder, take_expired: Callable[[Folder], Lease]) -> None:
    with Leases(renewed_every_s=0.01) as leases:
        leases.take(folder)
        (folder / ".lease").create("000002.json", take_expired(folder / "other")._record.encode())

        def is_lost() -> bool:
            try:
                leases.require_held()
            except LeaseLost:
                return True
            return False

        wait_until(is_lost)
    assert Lease.take(folder).fence.number == 3  # the lost lease was not written again
