"""A process, so that others can say which it is, and those on its machine whether it is still there."""

from __future__ import annotations

import os
import secrets
import socket
from typing import Self

from pydantic import BaseModel, ConfigDict

from gpo.process_mark import has_ended, process_space, process_start


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
            id=secrets.token_hex(8),
            host=socket.gethostname(),
            pid=pid,
            started=process_start(pid),
            space=process_space(),
        )

    @property
    def is_near(self) -> bool:
        """Whether it would be seen from here that the process has ended."""
        return self.space is not None and self.started is not None and self.space == process_space()

    @property
    def is_known_dead(self) -> bool:
        """Whether the process has certainly ended; never for one that cannot be seen from here."""
        return self.is_near and has_ended(self.pid, self.started or "")

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"
