"""The ``gpo`` command: ``app`` has the commands, one file each.

This module imports almost nothing, so that Ctrl-C shows no traceback while the rest is imported.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130
"""Exit code after Ctrl-C, by convention."""


def main() -> None:
    """Entry point of the console script."""
    signal.signal(signal.SIGINT, _end_at_once)  # until a command begins, nothing needs to be cleaned up
    # Small matrices take several times as long with more threads. NumPy reads this when it is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        from gpo.runtime.preloading import preload

        preload("cluster.cli.app")
        from cluster.cli.app import app

        app()
    except BrokenPipeError:
        raise SystemExit(1) from None
    finally:
        _flush()


def _end_at_once(_number: int, _frame: FrameType | None) -> None:
    os.write(2, b"Interrupted.\n")
    os._exit(INTERRUPTED)


def _flush() -> None:
    """Write out what is buffered; whoever closed the other end of the pipe does not want it, which is no error."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            # Python flushes again at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
