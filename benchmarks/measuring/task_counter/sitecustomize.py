"""Counts the asyncio tasks of every Python process that has this folder on its path, and writes the counts to files.

Python imports a module of this name at its start. Without the environment variable it does nothing.
"""

from __future__ import annotations

import os

FOLDER = "BENCHMARK_TASK_COUNTS"
EVERY_S = 5.0


def _count(path: str) -> None:
    import asyncio
    import gc
    from time import monotonic, sleep

    while True:
        sleep(EVERY_S)
        # Not ``isinstance``, which may run code of a foreign object.
        tasks = sum(type(thing) is asyncio.Task and not thing.done() for thing in gc.get_objects())
        with open(path, "a", encoding="ascii") as file:  # noqa: PTH123 - imported by every process at its start
            file.write(f"{monotonic()} {tasks}\n")


if FOLDER in os.environ:
    from threading import Thread

    _path = os.path.join(os.environ[FOLDER], str(os.getpid()))  # noqa: PTH118
    Thread(target=_count, args=(_path,), name="task-counter", daemon=True).start()
