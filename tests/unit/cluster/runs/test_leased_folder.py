from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from actors.folder import Folder
from actors.lease import Lease, LeaseHeld, LeaseLost
from actors.search import SearchKey
from cluster.runs import run_folder as module
from cluster.runs.run_folder import leased_folder
from gpo.checkpoint import Checkpoint
from gpo.testing.samples import TRAJECTORIES

CHECKPOINT = Checkpoint(TRAJECTORIES["one step"], {})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.setattr(module, "_PAUSE_S", 0.01)
    return Folder(str(tmp_path / "0003"))


async def test_a_later_holder_waits_for_the_lease(folder: Folder) -> None:
    order: list[str] = []

    async def work(name: str, started: asyncio.Event, proceed: asyncio.Event) -> None:
        async with leased_folder(folder):
            order.append(f"{name} begins")
            started.set()
            await proceed.wait()
            order.append(f"{name} ends")

    first, second = (asyncio.Event(), asyncio.Event()), (asyncio.Event(), asyncio.Event())
    second[1].set()
    works = [asyncio.create_task(work("first", *first))]
    await first[0].wait()
    works.append(asyncio.create_task(work("second", *second)))
    await asyncio.sleep(0.1)
    first[1].set()
    await asyncio.gather(*works)
    assert order == ["first begins", "first ends", "second begins", "second ends"]


async def test_waiting_for_a_renewed_lease_times_out(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TERM_S", "RENEWED_EVERY_S"):
        monkeypatch.setattr(module, name, 0.05)
    Lease.take(folder)
    with pytest.raises(LeaseHeld, match="is in use by"):
        async with leased_folder(folder):
            pass


async def test_a_process_that_lost_the_lease_writes_nothing_more(folder: Folder) -> None:
    key = SearchKey("task", 0)
    async with leased_folder(folder) as leased:
        leased.checkpoints.save(key, CHECKPOINT)
        assert (folder / ".lease").create("000002.json", b"{}")
        with pytest.raises(LeaseLost):
            leased.checkpoints.save(key, CHECKPOINT)
