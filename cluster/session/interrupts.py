"""SIGINT and SIGTERM: one clean stop, wherever the program is."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

_T = TypeVar("_T")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ONE_S = 2.0
"""Signals that follow each other this closely, in seconds, are one: a process and its group are often told alike."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Let both signals raise ``KeyboardInterrupt``, also where libraries wait in plain Python code."""
    told_at = float("-inf")

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal told_at
        before, told_at = told_at, time.monotonic()
        if told_at - before > _ONE_S:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_interruptibly(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine to its end and return its result; a signal cancels it, so that it can tidy up.

    Raises:
        KeyboardInterrupt: it was cancelled by a signal.
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
        return await task

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        return asyncio.run(supervised())
    except asyncio.CancelledError:
        if not interrupted:
            raise
        raise KeyboardInterrupt from None
    finally:
        # The loop, when it closes, puts Python's defaults in place of what was there.
        for number, handler in before.items():
            signal.signal(number, handler)
