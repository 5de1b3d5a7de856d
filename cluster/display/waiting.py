"""Says what the program waits for, and since when, while nothing else is printed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

from rich.console import Console

REMIND_AFTER_S = 5.0
"""Seconds after which a wait is mentioned, again and again."""


class Reminder:
    """Repeats what the program waits for, from another thread: the waiting one may be inside a library.

    Args:
        say: receives a line such as ``Starting Ray … (for 5 s)``.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._ended = Event()

    def begin(self, text: str) -> None:
        """Wait for this from now on, instead of what was waited for before."""
        self.end()
        self._ended = Event()
        Thread(target=self._remind, args=(text, self._ended), daemon=True).start()

    def end(self) -> None:
        """Wait for nothing any more."""
        self._ended.set()

    def _remind(self, text: str, ended: Event) -> None:
        began = time.monotonic()
        while not ended.wait(REMIND_AFTER_S):
            self._say(f"{text} … (for {time.monotonic() - began:.0f} s)")


@contextmanager
def waiting_for(console: Console, text: str) -> Iterator[None]:
    """Show what the block waits for: beside a spinner on a terminal, and elsewhere as lines once it takes long."""
    with console.status(f"{text} …") as status:

        def say(line: str) -> None:
            if console.is_terminal:
                status.update(line)
            else:
                console.print(line, markup=False, highlight=False, soft_wrap=True)

        reminder = Reminder(say)
        reminder.begin(text)
        try:
            yield
        finally:
            reminder.end()
