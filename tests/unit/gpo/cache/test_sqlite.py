from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from gpo.cache import sqlite_file
from gpo.cache.sqlite import SqliteStore
from gpo.cache.store import CompletionStore, Missing
from gpo.models.protocol import Completion, Usage
from gpo.testing.contracts import CompletionStoreContract
from tests.paths import ROOT


def reply(text: str) -> Completion:
    return Completion(text, Usage())


class TestSqlite(CompletionStoreContract):
    @pytest.fixture(autouse=True)
    def _path(self, tmp_path: Path) -> None:
        self.path = tmp_path / "new" / "completions.sqlite"

    def make(self) -> CompletionStore:
        return SqliteStore(self.path)

    def damage(self, key: bytes) -> None:
        with sqlite3.connect(self.path) as file:
            file.execute("UPDATE completions SET record = substr(record, 1, length(record) - 1) || x'07'")


async def keeps_nothing(store: SqliteStore, caplog: pytest.LogCaptureFixture) -> str:
    """The only warning of a store that has failed; every caller makes its own calls then."""
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert await store.find(b"key") is Missing.CLAIMED
            await store.put(b"key", reply("new"))
            await store.release(b"key")
    (record,) = caplog.records
    assert str(store.path) in record.getMessage()
    assert record.exc_info is None
    return record.getMessage()


async def test_a_file_of_random_bytes_is_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "completions.sqlite"
    content = random.Random(0).randbytes(50_000)
    path.write_bytes(content)
    assert "not a database" in await keeps_nothing(SqliteStore(path), caplog)
    assert path.read_bytes() == content


async def test_a_file_of_another_program_is_not_changed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "photos.sqlite"
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE photos (name TEXT)")
    content = path.read_bytes()
    assert "another program" in await keeps_nothing(SqliteStore(path), caplog)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]  # noqa: ASYNC240


async def test_a_file_of_another_version_is_not_changed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "completions.sqlite"
    sqlite_file.CompletionFile(path, 1_000_000).close()
    with sqlite3.connect(path) as file:
        file.execute("PRAGMA user_version = 99")
    assert "version 99" in await keeps_nothing(SqliteStore(path), caplog)


async def test_flipped_bytes_give_no_wrong_answer(tmp_path: Path) -> None:
    draw = random.Random(0)
    texts = {number.to_bytes(20, "big"): f"{number}:" + "x" * 300 for number in range(100)}
    for round_ in range(10):
        path = tmp_path / f"{round_}.sqlite"
        whole = sqlite_file.CompletionFile(path, 10_000_000)
        put = sqlite_file.Action.PUT
        whole.serve([sqlite_file.Request(put, key, reply(text)) for key, text in texts.items()])
        whole.close()
        content = bytearray(path.read_bytes())
        for _ in range(200):
            content[draw.randrange(100, len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        store = SqliteStore(path)
        for key, text in texts.items():
            assert await store.find(key) in (reply(text), Missing.CLAIMED, Missing.ELSEWHERE)


async def test_a_locked_file_is_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "_LOCKED_S", 0.2)
    path = tmp_path / "completions.sqlite"
    sqlite_file.CompletionFile(path, 1_000_000).close()
    holder = """
        import sqlite3, sys
        file = sqlite3.connect(sys.argv[1], isolation_level=None)
        file.execute("BEGIN EXCLUSIVE")
        print("locked", flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(holder), str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:  # noqa: ASYNC220
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        assert "locked" in await keeps_nothing(SqliteStore(path), caplog)
        other.communicate(timeout=60)


async def test_a_folder_that_cannot_be_created_is_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    await keeps_nothing(SqliteStore(tmp_path / "file" / "completions.sqlite"), caplog)


async def test_a_read_only_folder_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    # Not even root may write here.
    await keeps_nothing(SqliteStore(Path("/proc/self/completions.sqlite")), caplog)


def test_a_full_disk_is_tolerated(tmp_path: Path) -> None:
    program = """
        import asyncio, resource, sys
        from pathlib import Path
        from gpo.models.protocol import Completion, Usage
        from gpo.cache.sqlite import SqliteStore

        async def main():
            store = SqliteStore(Path(sys.argv[1]))
            await store.put(b"first", Completion("kept", Usage()))
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
            for number in range(100):
                await store.find(number.to_bytes(20, "big"))
                await store.put(number.to_bytes(20, "big"), Completion("x" * 10_000, Usage()))
            print(await store.find(b"first"))

        asyncio.run(main())
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "completions.sqlite")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "Missing.CLAIMED\n"), done.stderr
    (line,) = done.stderr.splitlines()
    assert "is no longer used" in line


async def test_the_size_is_bounded_and_used_completions_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "_USE_ACCURACY_S", -1.0)
    store = SqliteStore(tmp_path / "completions.sqlite", max_bytes=1_000_000)
    keys = [number.to_bytes(20, "big") for number in range(2000)]
    for number, key in enumerate(keys):
        await store.put(key, reply("x" * 2000))
        if number % 10 == 0:
            assert await store.find(keys[0]) == reply("x" * 2000)
            assert store.path.stat().st_size <= 1_050_000
    found = [await store.find(key) for key in keys]
    assert found[0] == found[-1] == reply("x" * 2000)
    assert found[1] is Missing.CLAIMED
    assert 150 < sum(isinstance(one, Completion) for one in found) < 300


async def test_a_lower_bound_shrinks_the_file(tmp_path: Path) -> None:
    path = tmp_path / "completions.sqlite"
    for number in range(1000):
        await SqliteStore(path, 10_000_000).put(number.to_bytes(20, "big"), reply("x" * 2000))
    await SqliteStore(path, 10_000_000).find(b"key")
    await SqliteStore(path, 10_000_000).release(b"key")
    await SqliteStore(path, 1_000_000).put(b"key", reply("new"))
    assert await SqliteStore(path, 1_000_000).find(b"key") == reply("new")
    with sqlite3.connect(path) as file:
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert path.stat().st_size <= 1_000_000


async def test_a_large_completion_does_not_evict_all_others(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "completions.sqlite", max_bytes=1_000_000)
    await store.put(b"small", reply("reply"))
    await store.put(b"large", reply("x" * 2_000_000))
    assert await store.find(b"small") == reply("reply")
    assert await store.find(b"large") is Missing.CLAIMED


async def test_only_the_owner_may_read_the_file(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "folder" / "completions.sqlite")
    await store.put(b"key", reply("text of a user"))
    await store.find(b"key")
    files = list(store.path.parent.iterdir())
    assert {path.name for path in files} >= {"completions.sqlite", "completions.sqlite-wal"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700


WORKER = textwrap.dedent("""
    import asyncio, sys
    from pathlib import Path
    from gpo.models.cached import CachedModel
    from gpo.models.protocol import Completion, Sampling, Usage
    from gpo.cache.sqlite import SqliteStore

    class Model:
        async def complete(self, messages, sampling):
            await asyncio.sleep(0.02)
            with open(sys.argv[2], "a") as log:
                log.write(messages[0]["content"] + "\\n")
            return Completion("reply to " + messages[0]["content"], Usage(requests=1))

    async def main():
        model = CachedModel(Model(), SqliteStore(Path(sys.argv[1])), {"model": "m"})
        texts = [str(number) for number in range(300)]
        sampling = Sampling(temperature=0.0)
        replies = await asyncio.gather(*(model.complete([{"role": "user", "content": t}], sampling) for t in texts))
        assert [reply.text for reply in replies] == ["reply to " + text for text in texts]
        print(sum(reply.usage.requests for reply in replies), sum(reply.usage.cached for reply in replies))

    asyncio.run(main())
""")


def test_simultaneous_processes_make_each_call_once(tmp_path: Path) -> None:
    log = tmp_path / "calls"
    command = [sys.executable, "-c", WORKER, str(tmp_path / "completions.sqlite"), str(log)]
    workers = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [worker.communicate(timeout=60)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    counts = [tuple(map(int, line.split())) for line in said]
    assert sum(requests for requests, _ in counts) == 300
    assert all(sum(count) == 300 for count in counts)
    assert sorted(log.read_text().split()) == sorted(str(number) for number in range(300))


async def test_the_claim_of_a_dead_process_expires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, now = tmp_path / "completions.sqlite", [time.time()]
    clock = SimpleNamespace(time=lambda: now[0], monotonic=time.monotonic, sleep=time.sleep)
    monkeypatch.setattr(sqlite_file, "time", clock)
    other = sqlite_file.CompletionFile(path, 1_000_000)
    find = sqlite_file.Request(sqlite_file.Action.FIND, b"key")
    assert other.serve([find]) == [Missing.CLAIMED]
    store = SqliteStore(path)
    for _ in range(5):  # the holder lives and renews the claim
        now[0] += sqlite_file._LEASE_S / 2
        other.renew()
        assert await store.find(b"key") is Missing.ELSEWHERE
    now[0] += sqlite_file._LEASE_S + 1
    assert await store.find(b"key") is Missing.CLAIMED
    other.close()


CLAIMS_AND_DIES = """
import asyncio, os, signal, sys
from pathlib import Path
from gpo.cache.sqlite import SqliteStore

asyncio.run(SqliteStore(Path(sys.argv[1])).find(b"key"))
os.kill(os.getpid(), signal.SIGKILL)
"""


async def test_the_claim_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    path = tmp_path / "completions.sqlite"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", CLAIMS_AND_DIES, str(path), cwd=ROOT)
    await asyncio.wait_for(process.wait(), 60)
    with sqlite3.connect(path) as file:
        ((expires,),) = file.execute("SELECT expires FROM claims").fetchall()
        # Longer than the rest of the test, so that the claim does not expire.
        file.execute("UPDATE claims SET expires = ?", (expires + 3600,))
    assert await SqliteStore(path).find(b"key") is Missing.CLAIMED
    other = sqlite_file.CompletionFile(path, 1_000_000)
    assert other.serve([sqlite_file.Request(sqlite_file.Action.FIND, b"key")]) == [Missing.ELSEWHERE]
    other.close()


async def test_a_completion_is_written_at_once_if_the_thread_is_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpo.cache.sqlite._MAX_COLLECTING_S", 60.0)
    store = SqliteStore(tmp_path / "completions.sqlite")
    await store.find(b"key")
    await store.put(b"key", reply("kept"))
    other = sqlite_file.CompletionFile(store.path, 1_000_000)
    async with asyncio.timeout(50):
        while other.serve([sqlite_file.Request(sqlite_file.Action.FIND, b"key")]) != [reply("kept")]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    other.close()


ENDS = """
import asyncio, os, sys
from pathlib import Path
from threading import Thread
from gpo.cache.sqlite import SqliteStore

store = SqliteStore(Path(sys.argv[1]))
asyncio.run(store.find(b"key"))
lock = store._file_thread._is_urgent._cond
holder = Thread(target=lock.acquire)
holder.start()
holder.join()
if child := os.fork():
    lock.release()
    print(os.waitpid(child, 0)[1])
"""
FORKS = """
import asyncio, os, sys
from pathlib import Path
from gpo.cache.sqlite import SqliteStore

store = SqliteStore(Path(sys.argv[1]))
asyncio.run(store.find(b"key"))
child = os.fork()
print(asyncio.run(asyncio.wait_for(store.find(b"another" if child else b"a third"), 60)), flush=True)
if child:
    os.waitpid(child, 0)
"""


def test_a_forked_child_uses_the_file_by_itself(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORKS, str(tmp_path / "completions.sqlite")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.splitlines() == [str(Missing.CLAIMED)] * 2, done.stderr


def test_a_forked_child_ends_even_if_a_thread_of_its_parent_held_a_lock(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ENDS, str(tmp_path / "completions.sqlite")]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, start_new_session=True
    ) as process:
        try:
            assert process.communicate(timeout=60)[0] == "0\n"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
