"""Names for processes by which others on the machine can tell that one has died."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

_PROC = Path("/proc")


@cache
def process_space() -> str | None:
    """Where a process's number means anything; ``None`` where the system does not tell.

    That is the machine since it was booted last, and the namespace of its process numbers: each container has its own.
    """
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return None


def process_start(pid: int) -> str | None:
    """When a process began, in ticks since the machine did, since numbers are given out again.

    ``None`` where there is none or it has ended, and where the system does not tell.
    """
    try:
        return _running_since(pid)
    except OSError:
        return None


def has_ended(pid: int, start: str) -> bool:
    """Whether it is certain that the process which began then, in this ``process_space``, has ended.

    Not where nothing can be found out, as when the system hides other users' processes or this one may open no more
    files.
    """
    try:
        return _running_since(pid) != start
    except (FileNotFoundError, ProcessLookupError):
        return not _exists(pid)
    except OSError:
        return False


def process_mark() -> str:
    """Of this process. Where the system does not tell what is needed, nobody will take it for dead."""
    return f"{process_space() or ''} {os.getpid()} {process_start(os.getpid())}"


def is_gone(mark: str) -> bool:
    """Whether it is certain that the process has died. One on another machine, or in another container, never is."""
    space, _, rest = mark.partition(" ")
    pid, _, start = rest.partition(" ")
    if not space or space != process_space() or not pid.isdecimal():
        return False
    return has_ended(int(pid), start)


def _running_since(pid: int) -> str | None:
    """``None`` where only a process's remains are there, and its parent has not asked for its exit code yet."""
    stat = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    state, *rest = stat.rpartition(")")[2].split()  # its name, in brackets, may hold anything
    return None if state in "ZX" else rest[18]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # there, and another user's; or no number of a process
        return True
    return True


class PicklesFieldsOnly:
    """A frozen dataclass with cached properties, which travels without them.

    Who sends a value on may do so in another thread, while its owner goes on reckoning: pickled as it stands, it would
    change meanwhile.
    """

    def __getstate__(self) -> dict[str, Any]:
        fields: dict[str, Any] = type(self).__dataclass_fields__  # type: ignore[attr-defined]
        known = self.__dict__
        return {name: known[name] for name in fields}
