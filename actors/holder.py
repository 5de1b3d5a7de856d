"""A process, so that others can say which it is, and those on its machine whether it is still there."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

_PROC = Path("/proc")
_ENDED = {"Z", "X"}
"""States of a process that has ended and whose parent has not asked for its exit code yet."""


class Holder(BaseModel):
    """Who holds a lease.

    Attributes:
        id: different for every holder there has ever been.
        host: the machine's name.
        pid: the process's number there.
        started: when it began, in the machine's own ticks: numbers are given out again. ``None`` where unknown.
        space: where its number means anything: this boot of that machine, and the container. ``None`` where unknown.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    host: str
    pid: int
    started: str | None
    space: str | None

    @classmethod
    def this_process(cls) -> Self:
        """The process that asks, as a holder of its own."""
        pid = os.getpid()
        return cls(
            id=secrets.token_hex(8), host=socket.gethostname(), pid=pid, started=_started(pid), space=_process_space()
        )

    @property
    def is_known_dead(self) -> bool:
        """Whether the process has certainly ended; never for one that cannot be seen from here."""
        if self.space is None or self.started is None or self.space != _process_space():
            return False
        return _started(self.pid) != self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def _started(pid: int) -> str | None:
    """When the process with this number began; ``None`` where there is none, or it has ended."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field is the program's name in brackets, with anything in it.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in _ENDED else fields[19]


def _process_space() -> str | None:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return None
