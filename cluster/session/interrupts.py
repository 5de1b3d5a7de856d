"""SIGINT and SIGTERM, and requests from other processes: all of them stop the program cleanly."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

_T = TypeVar("_T")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_REPEATED_WITHIN_S = 2.0
"""Signals this close together count as one: they are often sent to both a process and its group."""
_POLLED_EVERY_S = 2.0


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


def run_interruptibly(work: Coroutine[Any, Any, _T], stop_requested: Callable[[], bool] | None = None) -> _T:
    """Run a coroutine and return its result; a signal or a request cancels it, so that it can clean up.

    Args:
        stop_requested: whether there is a request. Called in a thread every 2 s; must not raise.

    Raises:
        KeyboardInterrupt: a signal or a request cancelled it.
    """
    interrupted = False

    async def supervised() -> _T:
        loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)

        def stop() -> None:
            nonlocal interrupted
            interrupted = True
            task.cancel()

        for number in _SIGNALS:
            loop.add_signal_handler(number, stop)
        polling = asyncio.create_task(poll(stop_requested, stop)) if stop_requested else None
        try:
            return await task
        finally:
            if polling is not None:
                polling.cancel()

    async def poll(is_requested: Callable[[], bool], stop: Callable[[], None]) -> None:
        while True:
            if await asyncio.to_thread(is_requested):
                return stop()
            await asyncio.sleep(_POLLED_EVERY_S)

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        return asyncio.run(supervised())
    except asyncio.CancelledError:
        if not interrupted:
            raise
        raise KeyboardInterrupt from None
    finally:
        # Closing the loop has replaced our handlers by Python's defaults.
        for number, handler in before.items():
            signal.signal(number, handler)
