"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NoReturn

from cluster.session.interrupts import raise_if_stopped


def wait_until(condition: Callable[[], bool], what: str = "it happened", *, timeout_s: float = 120) -> None:
    """Wait for a condition, up to a deadline; an ``OSError`` of the condition counts as not yet."""
    deadline = time.monotonic() + timeout_s
    while not _holds(condition):
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s in vain until {what}"
        time.sleep(0.01)


def wait_for_a_stop() -> NoReturn:
    """Wait as a session does that no node can take, until the run is stopped."""
    for _ in range(2000):
        raise_if_stopped()
        time.sleep(0.01)
    raise AssertionError("it waits for ever")


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except OSError:
        return False
