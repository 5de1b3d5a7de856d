"""The identity of a process, the cores that it may use, and objects that pickle without what they cache."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Self

_PROC = Path("/proc")
_UNKNOWN = "-"


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process, described so that other processes on its machine can tell whether it has ended.

    Attributes:
        host: the machine's name.
        pid: the process ID.
        started: when the process started, in clock ticks since boot: process IDs are reused. ``None`` if unknown.
        space: the machine's current boot and the PID namespace, where ``pid`` is unique; each container has its own
            namespace. ``None`` if unknown.
    """

    host: str
    pid: int
    started: str | None
    space: str | None

    @classmethod
    def current(cls) -> Self:
        """The identity of the process that calls this."""
        pid = os.getpid()
        try:
            started = _start_time(pid)
        except OSError:
            started = None
        return cls(socket.gethostname(), pid, started, _current_space())

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read what ``encode`` wrote; ``None`` for any other text."""
        match text.split(" ", 3):
            case [space, pid, started, host] if pid.isdecimal():
                return cls(host, int(pid), _known(started), _known(space))
            case _:
                return None

    def encode(self) -> str:
        """The identity as one line of text."""
        return f"{self.space or _UNKNOWN} {self.pid} {self.started or _UNKNOWN} {self.host}"

    @property
    def is_local(self) -> bool:
        """Whether the process runs on this machine and in this container, so that its end can be observed."""
        return self.space is not None and self.started is not None and self.space == _current_space()

    @property
    def has_certainly_ended(self) -> bool:
        """Whether the process has ended for certain.

        False for a process of another machine, and if the system does not answer: it may hide other users' processes,
        and this process may have too many files open.
        """
        if not self.is_local:
            return False
        try:
            return _start_time(self.pid) != self.started
        except (FileNotFoundError, ProcessLookupError):
            return not _exists(self.pid)
        except OSError:
            return False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def _known(text: str) -> str | None:
    return None if text == _UNKNOWN else text


@cache
def _current_space() -> str | None:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return None


def _start_time(pid: int) -> str | None:
    """Clock ticks since boot; ``None`` for a zombie, which has ended but was not reaped by its parent."""
    stat = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    state, *rest = stat.rpartition(")")[2].split()  # the name, in brackets, may contain anything
    return None if state in "ZX" else rest[18]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's process, or a number that no process has
        return True
    return True


class PicklesFieldsOnly:
    """A dataclass that is pickled without its cached properties.

    A cached property may hold a connection, which cannot be pickled. It may also be computed by one thread while
    another pickles the object, which would then change during pickling.
    """

    def __getstate__(self) -> dict[str, Any]:
        values = self.__dict__
        return {field.name: values[field.name] for field in fields(self)}  # type: ignore[arg-type]


# -- cores ------------------------------------------------------------------------------------------------------------

_CGROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """The cores that this process may use, ≥ 1: its CPU affinity, and the CPU quota of its control groups."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = min(_quotas(), default=float(cores))
    return max(1, min(cores, int(quota)))


def _quotas() -> Iterator[float]:
    """The CPU quotas of this process's control groups and of those above them, in cores."""
    try:
        groups = (_PROC / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in groups:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            root, files = _CGROUPS, ["cpu.max"]
        elif "cpu" in controllers.split(","):
            root, files = _CGROUPS / "cpu", ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        else:
            continue
        # In a container, the path may be that of the host, where only the root is visible.
        folder = root / path.strip("/")
        while True:
            try:
                words = " ".join((folder / name).read_text(encoding="utf-8") for name in files).split()
                quota, period = float(words[0]), float(words[1])
            except (OSError, ValueError, IndexError):  # "max" is no number
                pass
            else:
                if quota > 0 and period > 0:
                    yield quota / period
            if folder == root:
                break
            folder = folder.parent
