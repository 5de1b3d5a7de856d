"""What a command and all processes that it started use of the machine, read from ``/proc`` (Linux).

The processes are known by a variable in their environment, which every process inherits: Ray's daemons leave the
command's process group, session and tree, so that neither tells them. Time of the processor is each process's own,
as last seen: of a process that ended, what it used since the last look is missed.
"""

from __future__ import annotations

import os
import signal
import subprocess
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from uuid import uuid4

from benchmarks.measuring.family import MARK, marked_environment, program, stat

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_LOOK_EVERY_S = 0.25
_LOOKS_PER_WEIGHING = 4
"""Memory is asked for less often: the kernel walks through all pages of a process to tell it."""
_LINGER_S = 20.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used while a command ran.

    Attributes:
        started_s, ended_s: of the command, on the system's monotonic clock.
        looks: (time, seconds of the processor used until then), in order of time.
        peak_bytes: the most memory that all processes held at once: proportional set size, in which a page that
            several processes share counts once.
        peak_processes: the most processes at once.
        shares: program → (seconds of the processor, bytes at the time of the peak) of all processes that ran it.
        code: how the command ended; negative for a signal.
    """

    started_s: float
    ended_s: float
    looks: Sequence[tuple[float, float]]
    peak_bytes: int
    peak_processes: int
    shares: Mapping[str, tuple[float, int]]
    code: int

    @property
    def cpu_s(self) -> float:
        """Seconds of the processor that all processes took together."""
        return self.looks[-1][1] if self.looks else 0.0

    def cpu_until_s(self, time_s: float) -> float:
        """Likewise until a time, between two looks in proportion."""
        at = bisect_right(self.looks, time_s, key=itemgetter(0))
        if at == 0:
            return 0.0
        if at == len(self.looks):
            return self.cpu_s
        (before_s, less), (after_s, more) = self.looks[at - 1], self.looks[at]
        return less + (more - less) * (time_s - before_s) / (after_s - before_s)


def cpu_s(pid: int) -> float:
    """Time of the processor that a process took itself so far, user and system, in steps of 10 ms.

    Raises:
        OSError: there is no such process.
    """
    fields = stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def memory_bytes(pid: int) -> int:
    """The proportional set size of a process.

    Raises:
        OSError: there is no such process, or it belongs to somebody else.
    """
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


_Key = tuple[int, str]
"""A process by its number and its time of start: numbers are used again."""


@dataclass(slots=True)
class _Watcher:
    """Keeps the accounts of all processes with a mark."""

    mark: str
    looks: list[tuple[float, float]] = field(default_factory=list)
    peak_bytes: int = 0
    peak_processes: int = 0
    _used_s: dict[_Key, float] = field(default_factory=dict)
    _programs: dict[_Key, str] = field(default_factory=dict)
    _at_peak: dict[_Key, int] = field(default_factory=dict)
    _others: set[_Key] = field(default_factory=set)

    def look(self, *, weigh: bool) -> list[int]:
        """Take note of all processes; the numbers of those that are still there."""
        living = []
        for folder in os.listdir("/proc"):  # noqa: PTH208 - many times a second
            if not folder.isdigit():
                continue
            with suppress(OSError, IndexError):
                fields = stat(int(folder))
                key = (int(folder), fields[19])
                if key in self._others:
                    continue
                if key not in self._used_s and not self._is_marked(key[0]):
                    self._others.add(key)
                    continue
                self._used_s[key] = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
                if fields[0] != "Z":
                    living.append(key)
        self.looks.append((monotonic(), sum(self._used_s.values())))
        self.peak_processes = max(self.peak_processes, len(living))
        if weigh:
            self._weigh(living)
        return [pid for pid, _ in living]

    def shares(self) -> dict[str, tuple[float, int]]:
        """Program → seconds of the processor, and bytes at the time of the peak."""
        shares: dict[str, tuple[float, int]] = {}
        for key, used_s in self._used_s.items():
            name = self._programs.get(key, "short-lived")
            seconds, size = shares.get(name, (0.0, 0))
            shares[name] = (seconds + used_s, size + self._at_peak.get(key, 0))
        return dict(sorted(shares.items(), key=lambda item: -item[1][0]))

    def _weigh(self, living: Sequence[_Key]) -> None:
        sizes: dict[_Key, int] = {}
        for key in living:
            with suppress(OSError):
                sizes[key] = memory_bytes(key[0])
                self._programs[key] = program(key[0])
        if sum(sizes.values()) > self.peak_bytes:
            self.peak_bytes, self._at_peak = sum(sizes.values()), sizes

    def _is_marked(self, pid: int) -> bool:
        return f"{MARK}={self.mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


def watched(
    command: Sequence[str],
    *,
    cwd: Path,
    output: Path,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 900.0,
) -> Usage:
    """Run a command to its end, and until all that it started has ended; what is left after a while is killed.

    Args:
        output: file for what it prints, and for its errors.
        env: added to the environment, of which nothing is passed on that speaks of OpenAI, Ray or this program.
        timeout_s: a command that takes longer is killed, with all that it started.
    """
    watcher, done = _Watcher(uuid4().hex), Event()
    started_s = monotonic()
    with output.open("wb") as file:
        process = subprocess.Popen(  # noqa: S603
            command,
            cwd=cwd,
            env=marked_environment(watcher.mark, env),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    watching = Thread(target=_watch, args=(watcher, done), name="watcher")
    watching.start()
    try:
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
        code, ended_s = process.wait(), monotonic()
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        done.set()
        watching.join()
        _clear(watcher)
    return Usage(started_s, ended_s, watcher.looks, watcher.peak_bytes, watcher.peak_processes, watcher.shares(), code)


def _watch(watcher: _Watcher, done: Event) -> None:
    number = 0
    while not done.wait(_LOOK_EVERY_S):
        watcher.look(weigh=number % _LOOKS_PER_WEIGHING == 0)
        number += 1


def _clear(watcher: _Watcher) -> None:
    deadline_s = monotonic() + _LINGER_S
    while left := watcher.look(weigh=True):
        if monotonic() > deadline_s:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        Event().wait(_LOOK_EVERY_S)
