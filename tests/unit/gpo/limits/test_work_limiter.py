from __future__ import annotations

import asyncio

from gpo.limits.work_limiter import WorkLimiter
from gpo.runtime.context import current_caller


class Work:
    def __init__(self, limiter: WorkLimiter) -> None:
        self.limiter, self.now, self.most, self.order = limiter, 0.0, 0.0, list[str]()

    async def piece(self, caller: str, size: float) -> None:
        current_caller.set(caller)
        async with self.limiter.entered(size):
            self.order.append(caller)
            self.now += size
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.001)
            self.now -= size


async def test_admitted_work_stays_within_the_size() -> None:
    work = Work(WorkLimiter(10))
    await asyncio.gather(*(work.piece("a", 3) for _ in range(20)))
    assert work.most == 9


async def test_a_larger_piece_of_work_is_admitted_alone() -> None:
    work = Work(WorkLimiter(10))
    await asyncio.gather(*(work.piece("a", size) for size in (2, 50, 2, 2)))
    assert work.most == 50
    assert len(work.order) == 4


async def test_callers_take_turns_of_the_total_size() -> None:
    work = Work(WorkLimiter(4))
    full = asyncio.create_task(work.piece("z", 4))
    await asyncio.sleep(0)
    await asyncio.gather(full, *(work.piece(caller, 1) for caller in "aaaaaaaabbcc"))
    assert "".join(work.order) == "zaaaaabbccaaa", "the first in line, and then turns of four"


async def test_cancelled_work_frees_its_size() -> None:
    work = Work(WorkLimiter(4))
    for _ in range(5):
        pieces = [asyncio.create_task(work.piece("a", 2)) for _ in range(20)]
        await asyncio.sleep(0.0015)
        for piece in pieces[::3]:
            piece.cancel()
        await asyncio.gather(*pieces, return_exceptions=True)
        work.now = 0.0
    work.most = 0.0
    async with asyncio.timeout(60):
        await asyncio.gather(*(work.piece("b", 2) for _ in range(6)))
    assert work.most == 4
