"""Awaiting several coroutines concurrently, ending all of them when one fails; contexts that block."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any, Self, TypeVar

_T = TypeVar("_T")


def is_cancellation(error: BaseException) -> bool:
    """Whether an error means that the running task is being cancelled.

    Otherwise, a ``CancelledError`` comes from a function that was called, such as one of the user that awaits a task
    which was cancelled. It is a failure then: a caller that took it for a cancellation would end without a result.
    """
    if not isinstance(error, asyncio.CancelledError):
        return False
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop runs here
        return False
    return task is not None and task.cancelling() > 0


async def gather(coroutines: Iterable[Coroutine[Any, Any, _T]]) -> list[_T]:
    """The results, in order. The first failure cancels the rest and is raised itself, not in a group.

    Unlike with ``asyncio.gather``, nothing continues in the background after a failure, where it would cost money.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except* Exception as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


@asynccontextmanager
async def in_threads(context: AbstractContextManager[_T]) -> AsyncGenerator[_T]:
    """Enter and leave a context in threads, since it blocks. A task leaves it however often it is cancelled."""

    def begin(call: Callable[..., Any], *arguments: Any) -> asyncio.Task[Any]:
        return asyncio.create_task(asyncio.to_thread(call, *arguments))

    async def finished(work: asyncio.Task[Any]) -> Any:
        cancelled: asyncio.CancelledError | None = None
        while not work.done():
            try:
                await asyncio.wait([work])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
        return work.result()

    entering = begin(context.__enter__)
    try:
        value: _T = await finished(entering)
    except asyncio.CancelledError as cancelled:
        if entering.exception() is None:
            await finished(begin(context.__exit__, type(cancelled), cancelled, cancelled.__traceback__))
        raise
    try:
        yield value
    except BaseException as error:
        if not await finished(begin(context.__exit__, type(error), error, error.__traceback__)):
            raise
    else:
        await finished(begin(context.__exit__, None, None, None))


class FailFastGroup:
    """A group of tasks that is cancelled as a whole when one of them fails.

    Tasks can be added and awaited at any time. The first failure cancels the others at once, even if nothing awaits
    them. Leaving the ``async with`` block cancels the tasks that are still running and waits for their end. Unlike an
    ``asyncio.TaskGroup``, the group can be used in an asynchronous generator: it never cancels the task that iterates.
    """

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._failure: BaseException | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        ending = self._cancel()
        if ending:
            await asyncio.wait(ending)

    def begin(self, coroutine: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Start a task. If another task has failed already, it is cancelled before its first step."""
        task = asyncio.create_task(coroutine)
        self._running.add(task)
        task.add_done_callback(self._on_done)
        if self._failure is not None:
            task.cancel()
        return task

    async def result(self, task: asyncio.Task[_T]) -> _T:
        """The result of a task.

        Raises:
            BaseException: the first failure of any task of the group.
        """
        await asyncio.wait([task])
        if self._failure is not None:
            raise self._failure
        return task.result()

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None and self._failure is None:
            self._failure = failure
            self._cancel()

    def _cancel(self) -> list[asyncio.Task[Any]]:
        ending = list(self._running)
        for task in ending:
            task.cancel()
        return ending
