"""The processes of a command and their use of the machine, read from ``/proc`` (Linux)."""

from __future__ import annotations

import os
import signal
import subprocess
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import IO, NamedTuple
from uuid import uuid4

MARK = "BENCHMARK_PROCESS_MARK"
_NOT_INHERITED = ("OPENAI_", "RAY_", "GPO_")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_LOOK_EVERY_S = 0.25
_LOOKS_PER_MEMORY_READING = 4
"""Reading the memory is slow, since the kernel walks through all pages of a process."""
_END_TIMEOUT_S = 20.0


def stat(pid: int) -> list[str]:
    """The fields of ``/proc/PID/stat`` after the program's name: state first, parent second.

    Raises:
        OSError: there is no such process.
    """
    # The program's name is in parentheses and may contain spaces.
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def _cpu_s(fields: Sequence[str]) -> float:
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def cpu_s(pid: int) -> float:
    """CPU time of a process so far, user and system, in steps of 10 ms.

    Raises:
        OSError: there is no such process.
    """
    return _cpu_s(stat(pid))


def memory_bytes(pid: int) -> int:
    """The proportional set size of a process.

    Raises:
        OSError: there is no such process, or it belongs to another user.
    """
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def program(pid: int) -> str:
    """What a process runs: the class of a Ray actor, the module or script of a Python process, or the program's name.

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


class Process(NamedTuple):
    """A process by ID and start time, since IDs are used again; and what it runs."""

    pid: int
    started: str
    program: str

    def kill(self) -> bool:
        """Send SIGKILL; return whether the process still existed."""
        with suppress(OSError):
            if stat(self.pid)[19] == self.started:
                os.kill(self.pid, signal.SIGKILL)
                return True
        return False


def start_marked(
    command: Sequence[str], mark: str, *, cwd: Path, output: IO[bytes] | int, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a command in a new session, so that ``ProcessGroup(mark)`` finds all its processes.

    Args:
        output: receives what it prints, and its errors.
        env: added to this process's environment, from which all variables of OpenAI, Ray and GPO are removed.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
    return subprocess.Popen(  # noqa: S603
        command,
        cwd=cwd,
        env={**inherited, **(env or {}), MARK: mark},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


class ProcessGroup:
    """The processes that a marked command started, directly or indirectly.

    A process belongs to the group if its environment contains the mark or its parent belongs to the group. Both are
    needed: Ray's daemons leave the command's process group, session and tree, and Ray's workers overwrite their
    environment with their title.

    Attributes:
        lifetimes: (ID, start time) of every process ever seen → when it was last seen and when it was first missed (or
            ``None``), on the monotonic clock.
        cpu_s: CPU seconds of every process when it was last seen; what it used after that is not counted.
        programs: what every process runs.
    """

    def __init__(self, mark: str) -> None:
        self._mark = f"{MARK}={mark}".encode()
        self._unmarked: set[tuple[int, str]] = set()
        self.lifetimes: dict[tuple[int, str], tuple[float, float | None]] = {}
        self.cpu_s: dict[tuple[int, str], float] = {}
        self.programs: dict[tuple[int, str], str] = {}

    def refresh(self) -> list[Process]:
        """Find the processes that are alive now, ordered by ID."""
        found: dict[int, tuple[str, int, str, float]] = {}
        for folder in os.listdir("/proc"):  # noqa: PTH208 - called many times a second
            if folder.isdigit():
                with suppress(OSError, IndexError):
                    fields = stat(int(folder))
                    found[int(folder)] = (fields[0], int(fields[1]), fields[19], _cpu_s(fields))
        alive = []
        # Parents usually have smaller IDs than their children; otherwise the next call finds the child.
        for pid, (state, parent, started, used_s) in sorted(found.items()):
            key = (pid, started)
            has_parent = parent in found and (parent, found[parent][2]) in self.lifetimes
            if key not in self.lifetimes and not self._is_marked(key) and not has_parent:
                continue
            self.cpu_s[key] = used_s
            if state == "Z":
                continue
            self.lifetimes[key] = (monotonic(), None)
            with suppress(OSError):
                self.programs[key] = program(pid) or self.programs.get(key, "")  # an ending process has no name left
            alive.append(Process(pid, started, self.programs.get(key, "")))
        living = {(process.pid, process.started) for process in alive}
        for key, (seen_s, missed_s) in self.lifetimes.items():
            if missed_s is None and key not in living:
                self.lifetimes[key] = (seen_s, monotonic())
        return alive

    def ends(self, *names: str) -> dict[int, tuple[float, float]]:
        """ID → two times between which the process ended, for ended processes that ran one of the programs."""
        return {
            pid: (seen_s, missed_s)
            for (pid, started), (seen_s, missed_s) in self.lifetimes.items()
            if missed_s is not None and self.programs.get((pid, started)) in names
        }

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


@dataclass(frozen=True, slots=True)
class Usage:
    """What a command and all its processes used.

    Attributes:
        started_s, ended_s: of the command, on the system's monotonic clock.
        looks: (time, CPU seconds used so far), in order of time.
        peak_bytes: the most memory that all processes held at once: proportional set size, in which a page shared by
            several processes counts once.
        peak_processes: the most processes at once.
        shares: program → (CPU seconds, bytes at the time of the peak) of all processes that ran it.
        code: exit code of the command; negative for a signal.
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
        """CPU seconds of all processes."""
        return self.looks[-1][1] if self.looks else 0.0

    def cpu_until_s(self, time_s: float) -> float:
        """CPU seconds until a time, interpolated between two looks."""
        at = bisect_right(self.looks, time_s, key=itemgetter(0))
        if at == 0:
            return 0.0
        if at == len(self.looks):
            return self.cpu_s
        (before_s, less), (after_s, more) = self.looks[at - 1], self.looks[at]
        return less + (more - less) * (time_s - before_s) / (after_s - before_s)


class _UsageMeter:
    """Adds up what the processes of a group use."""

    def __init__(self, group: ProcessGroup) -> None:
        self._group = group
        self._bytes_at_peak: dict[tuple[int, str], int] = {}
        self.looks: list[tuple[float, float]] = []
        self.peak_bytes = self.peak_processes = 0

    def look(self, *, memory: bool) -> list[Process]:
        """Take a reading; return the living processes."""
        alive = self._group.refresh()
        self.looks.append((monotonic(), sum(self._group.cpu_s.values())))
        self.peak_processes = max(self.peak_processes, len(alive))
        if memory:
            sizes: dict[tuple[int, str], int] = {}
            for process in alive:
                with suppress(OSError):
                    sizes[process.pid, process.started] = memory_bytes(process.pid)
            if sum(sizes.values()) > self.peak_bytes:
                self.peak_bytes, self._bytes_at_peak = sum(sizes.values()), sizes
        return alive

    def shares(self) -> dict[str, tuple[float, int]]:
        """Program → CPU seconds, and bytes at the time of the peak; the largest CPU share first."""
        shares: dict[str, tuple[float, int]] = {}
        for key, used_s in self._group.cpu_s.items():
            name = self._group.programs.get(key) or "short-lived"
            seconds, size = shares.get(name, (0.0, 0))
            shares[name] = (seconds + used_s, size + self._bytes_at_peak.get(key, 0))
        return dict(sorted(shares.items(), key=lambda item: -item[1][0]))

    def watch(self, done: Event) -> None:
        """Take readings until the event is set."""
        number = 0
        while not done.wait(_LOOK_EVERY_S):
            self.look(memory=number % _LOOKS_PER_MEMORY_READING == 0)
            number += 1

    def wait_for_end(self) -> None:
        """Wait until all processes ended; kill them after a while."""
        deadline_s = monotonic() + _END_TIMEOUT_S
        while alive := self.look(memory=True):
            if monotonic() > deadline_s:
                for process in alive:
                    process.kill()
            Event().wait(_LOOK_EVERY_S)


def measure_usage(
    command: Sequence[str],
    *,
    cwd: Path,
    output: Path,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 900.0,
) -> Usage:
    """Run a command until it and all processes that it started have ended; kill processes that remain for too long.

    Args:
        output: file for what it prints, and for its errors.
        env: as in ``start_marked``.
        timeout_s: a command that takes longer is killed, and so are all its processes.
    """
    mark, done = uuid4().hex, Event()
    meter, started_s = _UsageMeter(ProcessGroup(mark)), monotonic()
    with output.open("wb") as file:
        process = start_marked(command, mark, cwd=cwd, output=file, env=env)
    watching = Thread(target=meter.watch, args=(done,), name="usage-meter")
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
        meter.wait_for_end()
    return Usage(started_s, ended_s, meter.looks, meter.peak_bytes, meter.peak_processes, meter.shares(), code)
