"""``python -m cluster.submitting.drain``: what a head node's pod does before it ends.

A node that ends kills the drivers of its jobs, without a word. This tells them first (SIGTERM), so that they save and
say that they were interrupted, and waits for their end. They exit with 1, so that whoever started the job starts it
again; stopping the job through Ray would make it one that nobody wants to go on.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

_PATIENCE_S = 30.0
_COMMAND = [b"-m", b"cluster.cli"]
_OF_A_JOB = b"RAY_JOB_CONFIG_JSON_ENV_VAR="
"""Ray puts it into the environment of a submitted job's driver."""


def main() -> None:
    """Tell every driver on this machine to stop; return when all have ended, or half a minute is over."""
    drain(_PATIENCE_S)


def drain(patience_s: float, processes: Path = Path("/proc")) -> list[int]:
    """Tell every driver to stop, and wait for their end; the numbers of those that are still there."""
    left = drivers(processes)
    for number in left:
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGTERM)
    deadline = time.monotonic() + patience_s
    while left and time.monotonic() < deadline:
        time.sleep(0.1)
        there = set(drivers(processes))
        left = [number for number in left if number in there]
    return left


def drivers(processes: Path = Path("/proc")) -> list[int]:
    """The numbers of the processes that drive a submitted run or sweep; their shells are not among them."""
    found = []
    for folder in processes.glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile, or somebody else's
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
            if arguments[1:3] == _COMMAND and _OF_A_JOB in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


if __name__ == "__main__":
    main()
