"""Says what the program waits for, and since when, while nothing else is printed."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event, Lock, Thread

SILENCE_S = 5.0
"""Seconds without an event after which lines of output show a sign of life."""


class Reminder:
    """Repeats what the program waits for, from another thread: the waiting one may be inside a library.

    Args:
        say: receives a line such as ``Starting Ray … (for 5 s)``.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._saying = say, Lock()
        self._ended = Event()

    def begin(self, text: str) -> None:
        """Wait for this from now on, instead of what was waited for before."""
        self.end()
        self._ended = Event()
        Thread(target=self._remind, args=(text, self._ended), daemon=True).start()

    def end(self) -> None:
        """End the wait. Nothing is said after this has returned."""
        with self._saying:
            self._ended.set()

    def _remind(self, text: str, ended: Event) -> None:
        began = time.monotonic()
        while not ended.wait(SILENCE_S):
            with self._saying:
                if not ended.is_set():
                    self._say(f"{text} … (for {time.monotonic() - began:.0f} s)")
