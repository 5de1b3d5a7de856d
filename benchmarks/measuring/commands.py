"""Runs commands while an observer sees their processes, and waits for or kills the processes that remain."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from time import monotonic, sleep
from typing import Protocol
from uuid import uuid4

from benchmarks.measuring.processes import Process, ProcessGroup, start_marked

_LOOK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended.

    Attributes:
        started_s, ended_s: on the system's monotonic clock.
        code: exit code; negative for a signal.
    """

    started_s: float
    ended_s: float
    code: int


def exit_on_sigterm() -> None:
    """Let SIGTERM raise ``SystemExit``, so that context managers stop what they started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


class Observer(Protocol):
    """Sees the processes of a running command several times a second."""

    def observe(self, now_s: float, processes: Sequence[Process]) -> None: ...


class CommandRunner:
    """Runs commands one after the other; processes of an earlier command may outlive it.

    Attributes:
        groups: the processes of each command, in order.
    """

    def __init__(self) -> None:
        self.groups: list[ProcessGroup] = []

    def run(
        self,
        command: Sequence[str],
        observer: Observer | None = None,
        *,
        cwd: Path,
        output: Path,
        env: Mapping[str, str] | None = None,
        timeout_s: float = 400.0,
    ) -> CommandResult:
        """Run a command until it ends.

        Args:
            observer: sees its processes.
            output: file to which its output is appended.
            timeout_s: a command that takes longer is killed, and so are all its processes.
        """
        mark = uuid4().hex
        group = ProcessGroup(mark)
        self.groups.append(group)
        started_s = monotonic()
        with output.open("ab") as file:
            process = start_marked(command, mark, cwd=cwd, output=file, env=env)
        try:
            while process.poll() is None:
                self._refresh_earlier()
                processes = group.refresh()
                if observer is not None:
                    observer.observe(monotonic(), processes)
                if monotonic() - started_s > timeout_s:
                    self.kill_remaining()
                sleep(_LOOK_EVERY_S)
        except BaseException:
            self.kill_remaining()
            process.wait()
            raise
        return CommandResult(started_s, monotonic(), process.wait())

    def wait_until_gone(self, timeout_s: float) -> float:
        """Wait until no process of the last command remains, or for ``timeout_s``; return the seconds it took."""
        started_s = monotonic()
        while monotonic() - started_s < timeout_s:
            self._refresh_earlier()
            if not self.groups[-1].refresh():
                break
            sleep(_LOOK_EVERY_S)
        return monotonic() - started_s

    def kill_remaining(self) -> list[list[str]]:
        """Kill all processes that remain; return what they ran, for each command."""
        remaining = [group.refresh() for group in self.groups]
        for process in chain(*remaining):
            process.kill()
        return [[process.program for process in processes] for processes in remaining]

    def _refresh_earlier(self) -> None:
        for group in self.groups[:-1]:
            group.refresh()
