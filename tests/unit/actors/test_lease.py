from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from actors import lease as lease_module
from actors.folder import Folder
from actors.lease import TERM_S, Holder, Lease, LeaseHeld, LeaseLost, Leases


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "SETTLE_S", 0.2)


@pytest.fixture
def folder(new_folder: Callable[[], str]) -> Folder:
    return Folder(new_folder())


@pytest.fixture
def run_out(monkeypatch: pytest.MonkeyPatch) -> Callable[[Folder], Lease]:
    """Takes a lease whose term is over at once: its holder seems to be silent since long ago."""

    def take(folder: Folder) -> Lease:
        with monkeypatch.context() as patch:
            patch.setattr(lease_module, "TERM_S", 0.0)
            return Lease.take(folder)

    return take


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[str]]:
    """Another process of this machine; it says so when it runs."""
    process = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def holder_of(process: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch) -> Holder:
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: process.pid)
        return Holder.this_process()


def take_as(holder: Holder, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> Lease:
    with monkeypatch.context() as patch:
        patch.setattr(Holder, "this_process", lambda: holder)
        return Lease.take(folder)


def test_one_holds_a_folder_and_others_are_told_who(folder: Folder) -> None:
    before = time.time()
    lease = Lease.take(folder)
    with pytest.raises(LeaseHeld) as caught:
        Lease.take(folder)
    assert f"process {os.getpid()} on {os.uname().nodename} holds it since " in str(caught.value)
    assert folder.url in str(caught.value)
    assert TERM_S - 5 < lease._term.until - before < TERM_S + 5
    lease.fence.check()


def test_what_is_released_is_free_at_once(folder: Folder) -> None:
    first = Lease.take(folder)
    first.release()
    second = Lease.take(folder)
    second.fence.check()
    assert second.fence.number == first.fence.number + 1
    assert len(second.fence.place.names()) == 1
    with pytest.raises(LeaseLost):
        first.fence.check()


def test_a_holder_that_was_silent_for_too_long_has_lost_it(folder: Folder, run_out: Callable[[Folder], Lease]) -> None:
    silent = run_out(folder)
    silent.fence.check()  # nobody has taken it over yet
    taken = Lease.take(folder)
    for action in (silent.fence.check, silent.renew, silent.release):
        with pytest.raises(LeaseLost, match=rf"was taken over by process {os.getpid()} on .* at \d{{4}}-.*Z"):
            action()
    taken.renew()
    with pytest.raises(LeaseHeld):
        Lease.take(folder)


def test_a_renewal_lets_nobody_in(folder: Folder, run_out: Callable[[Folder], Lease]) -> None:
    lease = run_out(folder)
    lease.renew()
    with pytest.raises(LeaseHeld):
        Lease.take(folder)


def test_a_renewal_that_comes_too_late_changes_nothing(folder: Folder, run_out: Callable[[Folder], Lease]) -> None:
    silent = run_out(folder)
    taken = Lease.take(folder)
    silent._write()  # it had looked before it fell silent
    taken.fence.check()
    with pytest.raises(LeaseLost):
        silent.fence.check()


def test_a_lease_that_was_removed_is_lost(folder: Folder) -> None:
    lease = Lease.take(folder)
    lease.fence.place.remove("000001.json")
    with pytest.raises(LeaseLost, match="has been removed"):
        lease.fence.check()


def test_a_dead_process_of_this_machine_is_not_waited_for(
    folder: Folder, stranger: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    take_as(holder_of(stranger, monkeypatch), folder, monkeypatch)
    with pytest.raises(LeaseHeld, match=f"process {stranger.pid} "):
        Lease.take(folder)
    stranger.kill()
    stranger.wait()
    Lease.take(folder)


def test_a_process_of_another_machine_is_waited_for(
    folder: Folder, stranger: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = holder_of(stranger, monkeypatch).model_copy(update={"host": "elsewhere", "space": "another/space"})
    take_as(foreign, folder, monkeypatch)
    stranger.kill()
    stranger.wait()
    with pytest.raises(LeaseHeld, match=f"process {stranger.pid} on elsewhere"):
        Lease.take(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"holder": 3}', b"\xff"])
def test_a_damaged_lease_keeps_nobody_out(folder: Folder, content: bytes) -> None:
    (folder / ".lease").write("000007.json", content)
    assert Lease.take(folder).fence.number == 8


def test_other_files_do_not_count(folder: Folder) -> None:
    (folder / ".lease").write("000001.json.partial", b"")
    (folder / ".lease").write("note.txt", b"")
    assert Lease.take(folder).fence.number == 1


def test_of_many_who_want_it_one_gets_it(folder: Folder) -> None:
    assert len(contest(folder)) == 1


class Forgetful(MemoryFileSystem):
    """A store that takes every write, also of what shall only be created."""

    protocol = "forgetful"
    store: dict[str, object] = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: object) -> None:
        super().pipe_file(path, value, mode="overwrite", **kwargs)


def test_of_many_one_gets_it_also_where_the_store_makes_no_difference() -> None:
    fsspec.register_implementation("forgetful", Forgetful, clobber=True)
    folder = Folder(f"forgetful://{uuid4().hex}")
    assert folder.create("file", b"")
    assert folder.create("file", b"")
    assert len(contest(folder)) == 1


def contest(folder: Folder) -> list[Lease]:
    """Who holds the folder, of eight that want it at the same time."""
    together = threading.Barrier(8)

    def attempt(_: int) -> Lease | None:
        together.wait()
        try:
            return Lease.take(folder)
        except LeaseHeld:
            return None

    with ThreadPoolExecutor(8) as threads:
        return [lease for lease in threads.map(attempt, range(8)) if lease is not None]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_a_command_holds_is_renewed_and_in_the_end_released(folder: Folder) -> None:
    with Leases(renewed_every_s=0.01) as leases:
        leases.take(folder)
        leases.take(folder)
        fence = leases.fence(folder)
        assert fence is not None
        first = fence.place.read("000001.json")
        wait_until(lambda: fence.place.read("000001.json") != first)
        leases.require_held()
        assert leases.fence(folder / "below") is None
    Lease.take(folder)


def test_a_command_learns_that_it_has_lost_a_folder(folder: Folder, run_out: Callable[[Folder], Lease]) -> None:
    with Leases(renewed_every_s=0.01) as leases:
        leases.take(folder)
        (folder / ".lease").create("000002.json", run_out(folder / "other")._term.model_dump_json().encode())

        def is_lost() -> bool:
            try:
                leases.require_held()
            except LeaseLost:
                return True
            return False

        wait_until(is_lost)
    assert Lease.take(folder).fence.number == 3  # the one who lost it has not spoken again


class TestHolder:
    def test_is_this_process(self) -> None:
        holder = Holder.this_process()
        assert (holder.pid, holder.host) == (os.getpid(), os.uname().nodename)
        assert not holder.is_known_dead
        assert holder.id != Holder.this_process().id

    def test_has_ended_before_its_parent_looks(
        self, stranger: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        holder = holder_of(stranger, monkeypatch)
        assert not holder.is_known_dead
        stranger.kill()
        wait_until(lambda: holder.is_known_dead)
        assert stranger.returncode is None

    def test_is_another_where_the_number_was_given_out_again(self) -> None:
        assert Holder.this_process().model_copy(update={"started": "1"}).is_known_dead

    @pytest.mark.parametrize("unknown", ["started", "space"])
    def test_is_not_known_dead_where_something_is_unknown(self, unknown: str) -> None:
        assert not Holder.this_process().model_copy(update={"pid": 2**30, unknown: None}).is_known_dead
        assert Holder.this_process().model_copy(update={"pid": 2**30}).is_known_dead
