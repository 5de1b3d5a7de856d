"""SIGINT and SIGTERM, and requests from other processes: all of them stop the program cleanly."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import Any, TypeVar

_T = TypeVar("_T")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_REPEATED_WITHIN_S = 2.0
"""Signals this close together count as one: they are often sent to both a process and its group."""
_POLLED_EVERY_S = 2.0


class StopRequested(Exception):
    """A stop file asked for the end. Not a ``KeyboardInterrupt``, which would end the event loop that it passes."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Let both signals raise ``KeyboardInterrupt``, even while a library waits in Python code."""
    last = float("-inf")

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal last
        before, last = last, time.monotonic()
        if last - before > _REPEATED_WITHIN_S:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_stop_event: ContextVar[threading.Event | None] = ContextVar("_stop_event", default=None)


@contextmanager
def stoppable_by(event: threading.Event) -> Iterator[None]:
    """Let an event stop the block: signals reach the main thread only, and the block may run in another one."""
    token = _stop_event.set(event)
    try:
        yield
    finally:
        _stop_event.reset(token)


_limit: ContextVar[Callable[[], object] | None] = ContextVar("_limit", default=None)


@contextmanager
def limited_by(check: Callable[[], object]) -> Iterator[None]:
    """Let a function end the block by what it raises, wherever the block waits and calls ``raise_if_stopped``."""
    token = _limit.set(check)
    try:
        yield
    finally:
        _limit.reset(token)


def raise_if_stopped() -> None:
    """Call the function of ``limited_by``; raise ``KeyboardInterrupt`` if the event of ``stoppable_by`` is set.

    Called wherever something outside an event loop is awaited.
    """
    check, event = _limit.get(), _stop_event.get()
    if check is not None:
        check()
    if event is not None and event.is_set():
        raise KeyboardInterrupt


async def stoppable_work(work: Coroutine[Any, Any, _T], stop_requested: Callable[[], bool]) -> _T:
    """Await a coroutine and return its result; a request cancels it, so that it can clean up.

    Args:
        stop_requested: whether there is a request. Called in a thread every 2 s; must not raise.

    Raises:
        StopRequested: a request cancelled it.
    """
    task = asyncio.ensure_future(work)
    is_requested = False

    async def poll() -> None:
        nonlocal is_requested
        while True:
            if await asyncio.to_thread(stop_requested):
                is_requested = True
                task.cancel()
                return
            await asyncio.sleep(_POLLED_EVERY_S)

    polling = asyncio.create_task(poll())
    try:
        return await task
    except asyncio.CancelledError:
        if not is_requested:
            raise
        raise StopRequested from None
    finally:
        polling.cancel()


def run_interruptibly(work: Coroutine[Any, Any, _T], stop_requested: Callable[[], bool] | None = None) -> _T:
    """Run a coroutine and return its result; a signal or a request cancels it, so that it can clean up.

    In another thread than the main one, the event of ``stoppable_by`` takes the place of the signals.

    Args:
        stop_requested: as for ``stoppable_work``.

    Raises:
        KeyboardInterrupt: a signal, a request or the event cancelled it.
    """
    if threading.current_thread() is not threading.main_thread():
        return _run_in_a_thread(work, stop_requested)
    interrupted = False

    async def supervised() -> _T:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(stoppable_work(work, stop_requested) if stop_requested else work)

        def stop() -> None:
            nonlocal interrupted
            interrupted = True
            task.cancel()

        for number in _SIGNALS:
            loop.add_signal_handler(number, stop)
        return await task

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        return asyncio.run(supervised())
    except StopRequested:
        raise KeyboardInterrupt from None
    except asyncio.CancelledError:
        if not interrupted:
            raise
        raise KeyboardInterrupt from None
    finally:
        # Closing the loop has replaced our handlers by Python's defaults.
        for number, handler in before.items():
            signal.signal(number, handler)


def _run_in_a_thread(work: Coroutine[Any, Any, _T], stop_requested: Callable[[], bool] | None) -> _T:
    event = _stop_event.get() or threading.Event()
    try:
        return asyncio.run(stoppable_work(work, lambda: event.is_set() or bool(stop_requested and stop_requested())))
    except StopRequested:
        raise KeyboardInterrupt from None
