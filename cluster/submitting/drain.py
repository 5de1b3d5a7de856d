"""``python -m cluster.submitting.drain``: stops the jobs' drivers before the pod of a head node ends.

A node that ends kills the drivers of its jobs without warning. This module sends them SIGTERM first, so that they save
their work and report the interruption, and waits until they have ended. They exit with 1, so that the job is started
again; a job that is stopped through Ray would not be.

With ``--node``, it then sends SIGTERM to Ray's own process. Kubernetes sends it to the first process of the container
alone. If that is a shell, the signal is lost, and the pod stays until its grace period is over.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

_PATIENCE_S = 30.0
_COMMAND = [b"-m", b"cluster.cli"]
_OF_A_JOB = b"RAY_JOB_CONFIG_JSON_ENV_VAR="
"""Ray sets this variable for the driver of a submitted job."""


def main(arguments: Sequence[str]) -> None:
    """Stop every driver on this machine, for at most half a minute; then the node, with ``--node``."""
    drain(_PATIENCE_S)
    if "--node" in arguments:
        for number in nodes():
            _stop(number)


def drain(patience_s: float, processes: Path = Path("/proc")) -> list[int]:
    """Stop every driver and wait until they have ended; the PIDs of those that still run."""
    left = drivers(processes)
    for number in left:
        _stop(number)
    deadline = time.monotonic() + patience_s
    while left and time.monotonic() < deadline:
        time.sleep(0.1)
        running = set(drivers(processes))
        left = [number for number in left if number in running]
    return left


def drivers(processes: Path = Path("/proc")) -> list[int]:
    """The PIDs of the processes that drive a submitted run or sweep, without their shells."""

    def is_driver(arguments: list[bytes], folder: Path) -> bool:
        return arguments[1:3] == _COMMAND and _OF_A_JOB in (folder / "environ").read_bytes()

    return _found(is_driver, processes)


def nodes(processes: Path = Path("/proc")) -> list[int]:
    """The PIDs of the processes of ``ray start``, without their shells."""
    return _found(lambda arguments, _: arguments[1].endswith(b"/ray") and arguments[2] == b"start", processes)


def _found(is_wanted: Callable[[list[bytes], Path], bool], processes: Path) -> list[int]:
    found = []
    for folder in processes.glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or belongs to another user
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
            if len(arguments) > 3 and is_wanted(arguments, folder):
                found.append(int(folder.name))
    return found


def _stop(number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(number, signal.SIGTERM)


if __name__ == "__main__":
    main(sys.argv[1:])
