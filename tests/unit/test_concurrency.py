from __future__ import annotations

import asyncio

import pytest

from gpo.concurrency import gather


async def after(turns: int, result: object, log: list[object] | None = None) -> object:
    for _ in range(turns):
        await asyncio.sleep(0)
    if isinstance(result, Exception):
        raise result
    if log is not None:
        log.append(result)
    return result


async def test_results_are_in_order_whoever_is_first() -> None:
    log: list[object] = []
    assert await gather(after(5 - number, number, log) for number in range(5)) == [0, 1, 2, 3, 4]
    assert log == [4, 3, 2, 1, 0]


async def test_nothing_gives_nothing() -> None:
    assert await gather([]) == []


async def test_the_first_failure_is_raised_as_it_is_and_ends_the_rest() -> None:
    failure, log = KeyError("first"), list[object]()
    with pytest.raises(KeyError) as caught:
        await gather([after(9, "late", log), after(2, failure), after(4, ValueError("second")), after(0, "early", log)])
    assert caught.value is failure
    assert log == ["early"]


async def test_one_within_another_raises_the_failure_itself() -> None:
    failure = KeyError("within")
    with pytest.raises(KeyError) as caught:
        await gather([gather([after(1, failure), after(2, "late")]), gather([after(3, "other")])])
    assert caught.value is failure


async def test_cancelling_it_cancels_what_it_waits_for() -> None:
    log: list[object] = []
    waiting = asyncio.create_task(gather([after(50, "late", log)]))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert log == []
