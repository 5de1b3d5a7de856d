"""Every Python process that finds this on its path counts its asyncio tasks now and then, and writes the number down.

Python imports a module of this name when it starts. It does nothing where the variable is not set.
"""

from __future__ import annotations

import os

FOLDER = "BENCHMARK_CENSUS_FOLDER"
EVERY_S = 5.0


def _count(path: str) -> None:
    import asyncio
    import gc
    from time import monotonic, sleep

    while True:
        sleep(EVERY_S)
        # Exactly this class: asking a foreign object what it is may run its code.
        tasks = sum(type(thing) is asyncio.Task and not thing.done() for thing in gc.get_objects())
        with open(path, "a", encoding="ascii") as file:  # noqa: PTH123 - imported by every process at its start
            file.write(f"{monotonic()} {tasks}\n")


if FOLDER in os.environ:
    from threading import Thread

    _path = os.path.join(os.environ[FOLDER], str(os.getpid()))  # noqa: PTH118
    Thread(target=_count, args=(_path,), name="census", daemon=True).start()
