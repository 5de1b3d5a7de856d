"""Names for processes by which others on the machine can tell that one has died."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path


@cache
def _machine() -> str:
    """The machine since it was booted last, and the namespace of its process numbers: each container has its own."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """When a process was started, in ticks since the machine was; ``None`` where there is none, or only its remains."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *rest = stat.rpartition(")")[2].split()  # its name may hold anything
    return None if state in "ZX" else rest[18]


def process_mark() -> str:
    """Of this process. Where the system does not tell what is needed, nobody will take it for dead."""
    return f"{_machine()} {os.getpid()} {_started(os.getpid())}"


def is_gone(mark: str) -> bool:
    """Whether it is certain that the process has died. One on another machine, or in another container, never is."""
    machine, _, rest = mark.partition(" ")
    pid, _, started = rest.partition(" ")
    if not machine or machine != _machine() or not pid.isdecimal():
        return False
    return _started(int(pid)) != started
