"""Awaiting several things at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, Self, TypeVar

_T = TypeVar("_T")


async def gather(coroutines: Iterable[Coroutine[Any, Any, _T]]) -> list[_T]:
    """The results, in order; the first failure cancels the rest and is raised as it is.

    Unlike ``asyncio.gather``, nothing goes on in the background after a failure: what is left would still be paid for.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except* Exception as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


class FailFastGroup:
    """Tasks that may be begun one after the other and awaited at any time, and that stand and fall together.

    The first failure cancels the others at once, whether or not anybody waits. Leaving the ``async with`` block cancels
    what is still at work, and waits until it has ended. Unlike an ``asyncio.TaskGroup``, it may be held by an
    asynchronous generator: it never cancels the task that happens to iterate.
    """

    def __init__(self) -> None:
        self._at_work: set[asyncio.Task[Any]] = set()
        self._failure: BaseException | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        ending = self._cancel()
        if ending:
            await asyncio.wait(ending)

    def begin(self, coroutine: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Start a task; after a failure it is cancelled before its first step."""
        task = asyncio.create_task(coroutine)
        self._at_work.add(task)
        task.add_done_callback(self._ended)
        if self._failure is not None:
            task.cancel()
        return task

    async def result(self, task: asyncio.Task[_T]) -> _T:
        """What the task returns.

        Raises:
            BaseException: the first failure of any of the tasks, as it is.
        """
        await asyncio.wait([task])
        if self._failure is not None:
            raise self._failure
        return task.result()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._at_work.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None and self._failure is None:
            self._failure = failure
            self._cancel()

    def _cancel(self) -> list[asyncio.Task[Any]]:
        ending = list(self._at_work)
        for task in ending:
            task.cancel()
        return ending
