from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gpo.runtime.concurrency import FailFastGroup, gather, in_threads


async def after(turns: int, result: object, log: list[object] | None = None) -> object:
    for _ in range(turns):
        await asyncio.sleep(0)
    if isinstance(result, Exception):
        raise result
    if log is not None:
        log.append(result)
    return result


async def test_results_are_in_the_order_of_the_tasks() -> None:
    log: list[object] = []
    assert await gather(after(5 - number, number, log) for number in range(5)) == [0, 1, 2, 3, 4]
    assert log == [4, 3, 2, 1, 0]


async def test_no_tasks_give_no_results() -> None:
    assert await gather([]) == []


async def test_the_first_failure_is_raised_and_cancels_the_other_tasks() -> None:
    failure, log = KeyError("first"), list[object]()
    with pytest.raises(KeyError) as caught:
        await gather([after(9, "late", log), after(2, failure), after(4, ValueError("second")), after(0, "early", log)])
    assert caught.value is failure
    assert log == ["early"]


async def test_a_nested_group_raises_the_failure_itself() -> None:
    failure = KeyError("within")
    with pytest.raises(KeyError) as caught:
        await gather([gather([after(1, failure), after(2, "late")]), gather([after(3, "other")])])
    assert caught.value is failure


async def test_cancelling_a_group_cancels_its_tasks() -> None:
    log: list[object] = []
    waiting = asyncio.create_task(gather([after(50, "late", log)]))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert log == []


async def test_tasks_of_a_group_can_be_awaited_in_any_order() -> None:
    async with FailFastGroup() as work:
        slow, fast = work.begin(after(9, "slow")), work.begin(after(1, "fast"))
        assert await work.result(slow) == "slow"
        assert await work.result(fast) == "fast"


async def test_a_failure_cancels_the_other_tasks_before_any_is_awaited() -> None:
    failure, log = KeyError("first"), list[object]()
    async with FailFastGroup() as work:
        late, early = work.begin(after(50, "late", log)), work.begin(after(0, "early", log))
        failing = work.begin(after(2, failure))
        for _ in range(9):
            await asyncio.sleep(0)
        assert late.cancelled()
        after_it = work.begin(after(0, "after", log))
        for task in (late, early, failing, after_it):
            with pytest.raises(KeyError) as caught:
                await work.result(task)
            assert caught.value is failure
    assert log == ["early"]


async def test_leaving_a_group_cancels_its_tasks_and_waits_for_them() -> None:
    log: list[object] = []

    async def tidy() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.01)
            log.append("tidied up")

    async with FailFastGroup() as work:
        task = work.begin(tidy())
        await asyncio.sleep(0)
    assert task.cancelled()
    assert log == ["tidied up"]


async def test_cancelling_a_waiting_caller_cancels_the_tasks() -> None:
    log: list[object] = []

    async def wait() -> None:
        async with FailFastGroup() as work:
            await work.result(work.begin(after(50, "late", log)))

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert log == []


class Blocking:
    """A context that blocks; it logs how it is left, and in which thread."""

    def __init__(self, replaced_by: Exception | None = None) -> None:
        self.log: list[object] = []
        self._replaced_by = replaced_by

    @contextmanager
    def __call__(self) -> Iterator[str]:
        time.sleep(0.05)
        self.log.append(threading.current_thread() is threading.main_thread())
        try:
            yield "value"
            self.log.append("left")
        except BaseException as error:
            self.log.append(type(error))
            if self._replaced_by is not None:
                raise self._replaced_by from None
            raise


async def test_a_context_in_threads_is_left_as_any_other() -> None:
    blocking = Blocking()
    async with in_threads(blocking()) as value:
        assert value == "value"
    assert blocking.log == [False, "left"]
    for raised in (ZeroDivisionError, asyncio.CancelledError):
        blocking = Blocking()
        with pytest.raises(raised):
            async with in_threads(blocking()):
                raise raised
        assert blocking.log == [False, raised]
    with pytest.raises(LookupError, match="instead"):
        async with in_threads(Blocking(LookupError("instead"))()):
            raise ZeroDivisionError


async def test_a_task_that_is_cancelled_while_it_enters_a_context_leaves_it() -> None:
    blocking = Blocking()

    async def work() -> None:
        async with in_threads(blocking()):
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert blocking.log == [False, asyncio.CancelledError]


async def test_a_task_that_is_cancelled_again_while_it_enters_a_context_still_leaves_it() -> None:
    may_enter, log = threading.Event(), list[str]()

    @contextmanager
    def held() -> Iterator[None]:
        assert may_enter.wait(60)
        try:
            yield
        finally:
            log.append("left")

    async def work() -> None:
        async with in_threads(held()):
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    for _ in range(3):
        await asyncio.sleep(0.01)
        task.cancel()
    may_enter.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["left"]
