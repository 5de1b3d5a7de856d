"""The processes of a command: all that it started, at any remove (Linux, ``/proc``).

They are known by a variable in their environment, which every process inherits, and by their parents: Ray's daemons
leave the command's process group, session and tree, and its workers write their titles over their environment.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import NamedTuple

MARK = "BENCHMARK_PROCESS_MARK"
_NOT_INHERITED = ("OPENAI_", "RAY_", "GPO_")


def marked_environment(mark: str, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours with a mark and further variables, and without any that speaks of OpenAI, Ray or this program."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
    return {**inherited, **(env or {}), MARK: mark}


def stat(pid: int) -> list[str]:
    """The fields of ``/proc/PID/stat`` after the program's name: state first, parent second.

    Raises:
        OSError: there is no such process.
    """
    # The name of the program comes in parentheses, and may hold spaces.
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def program(pid: int) -> str:
    """What a process runs: the class of a Ray actor, the module or script that Python runs, or the program's name.

    Raises:
        OSError: there is no such process.
    """
    words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode(errors="replace").split("\0")
    if words[0].startswith("ray::"):
        return words[0].split(":")[2].split(".")[0].split()[0]
    name = words[0].split("/")[-1]
    if name.startswith("python"):
        return next((word.split("/")[-1] for word in words[1:] if not word.startswith("-")), name)
    return name


class Member(NamedTuple):
    """A process by its number and its time of start, since numbers are used again; and what it runs."""

    pid: int
    born: str
    program: str

    def kill(self) -> bool:
        """Kill it at once (SIGKILL); whether it was still there."""
        with suppress(OSError):
            if stat(self.pid)[19] == self.born:
                os.kill(self.pid, signal.SIGKILL)
                return True
        return False


class Family:
    """The processes that carry a mark, or have a parent that is one of them.

    Args:
        mark: in the environment of the first one; see ``marked_environment``.

    Attributes:
        lives: of every member ever seen, when it was seen last, and first missed (or ``None``), on the monotonic clock.
    """

    def __init__(self, mark: str) -> None:
        self._mark = f"{MARK}={mark}".encode()
        self._unmarked: set[tuple[int, str]] = set()
        self.lives: dict[tuple[int, str], tuple[float, float | None]] = {}
        self._programs: dict[tuple[int, str], str] = {}

    def look(self) -> list[Member]:
        """Those that live now, in order of their numbers."""
        processes: dict[int, tuple[str, int, str]] = {}
        for folder in os.listdir("/proc"):  # noqa: PTH208 - many times a second
            if folder.isdigit():
                with suppress(OSError, IndexError):
                    fields = stat(int(folder))
                    processes[int(folder)] = (fields[0], int(fields[1]), fields[19])
        members = []
        # A parent is most often older, and has the smaller number; where it has not, the next look tells.
        for pid, (state, parent, born) in sorted(processes.items()):
            key = (pid, born)
            if key not in self.lives and not self._is_marked(key) and not self._is_member(parent, processes):
                continue
            if state == "Z":
                continue
            self.lives[key] = (monotonic(), None)
            with suppress(OSError):
                self._programs[key] = program(pid) or self._programs.get(key, "")  # one that ends has no name left
            members.append(Member(pid, born, self._programs.get(key, "")))
        living = {(member.pid, member.born) for member in members}
        for key, (seen_s, missed_s) in self.lives.items():
            if missed_s is None and key not in living:
                self.lives[key] = (seen_s, monotonic())
        return members

    def ends(self, *names: str) -> dict[int, tuple[float, float]]:
        """Of the members that ran one of the programs, by number: when they ended, between the two times."""
        return {
            pid: (seen_s, missed_s)
            for (pid, born), (seen_s, missed_s) in self.lives.items()
            if missed_s is not None and self._programs.get((pid, born)) in names
        }

    def _is_member(self, pid: int, processes: Mapping[int, tuple[str, int, str]]) -> bool:
        return pid in processes and (pid, processes[pid][2]) in self.lives

    def _is_marked(self, key: tuple[int, str]) -> bool:
        if key in self._unmarked:
            return False
        try:
            is_marked = self._mark in Path(f"/proc/{key[0]}/environ").read_bytes().split(b"\0")
        except OSError:
            is_marked = False
        if not is_marked:
            self._unmarked.add(key)
        return is_marked
