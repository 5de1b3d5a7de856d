"""A command that is run while parts of it are killed, and what becomes of its processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from time import monotonic, sleep
from typing import Protocol
from uuid import uuid4

from benchmarks.measuring.family import Family, Member, marked_environment

_LOOK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Sitting:
    """How it went.

    Attributes:
        started_s, ended_s: of the command, on the system's monotonic clock.
        code: how it ended; negative for a signal.
    """

    started_s: float
    ended_s: float
    code: int


def end_on_sigterm() -> None:
    """Have SIGTERM raise ``SystemExit``, so that what was started is ended before we are."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


class Onlooker(Protocol):
    """Does something to a command's processes, or with them, several times a second."""

    def look(self, now_s: float, members: Sequence[Member]) -> None: ...


class Household:
    """The families of several commands, one after the other: what one leaves behind may live on beside the next.

    Attributes:
        families: one per command, in order.
    """

    def __init__(self) -> None:
        self.families: list[Family] = []

    def sit(
        self,
        command: Sequence[str],
        onlooker: Onlooker | None = None,
        *,
        cwd: Path,
        output: Path,
        env: Mapping[str, str] | None = None,
        timeout_s: float = 400.0,
    ) -> Sitting:
        """Run a command to its end.

        Args:
            onlooker: is shown its processes.
            output: file to which what it prints is appended.
            timeout_s: a command that takes longer is killed, with all that it started.
        """
        mark = uuid4().hex
        family = Family(mark)
        self.families.append(family)
        started_s = monotonic()
        with output.open("ab") as file:
            process = subprocess.Popen(  # noqa: S603
                command,
                cwd=cwd,
                env=marked_environment(mark, env),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            while process.poll() is None:
                self._look_at_earlier()
                members = family.look()
                if onlooker is not None:
                    onlooker.look(monotonic(), members)
                if monotonic() - started_s > timeout_s:
                    self.clear()
                sleep(_LOOK_EVERY_S)
        except BaseException:
            self.clear()
            process.wait()
            raise
        return Sitting(started_s, monotonic(), process.wait())

    def linger(self, longest_s: float) -> float:
        """Look on until no process of the last command is left, or for so long; seconds that it took."""
        started_s = monotonic()
        while monotonic() - started_s < longest_s:
            self._look_at_earlier()
            if not self.families[-1].look():
                break
            sleep(_LOOK_EVERY_S)
        return monotonic() - started_s

    def clear(self) -> list[list[str]]:
        """Kill what is left; for each command, the programs that ran."""
        left = [family.look() for family in self.families]
        for member in chain(*left):
            member.kill()
        return [[member.program for member in members] for members in left]

    def _look_at_earlier(self) -> None:
        for family in self.families[:-1]:
            family.look()
