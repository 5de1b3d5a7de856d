"""Resources that each process of a command holds: memory, threads, open files, sockets, asyncio tasks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from benchmarks.measuring.kills import PROGRAMS
from benchmarks.measuring.processes import Process

_OLDEST_COUNT_S = 60.0
"""Counts are written every few seconds; an older one is out of date, even on a busy machine."""
_IDLE = "IDLE"
"""Ray's name for a worker that waits for work. It may be seconds old and have no count yet."""


@dataclass(frozen=True, slots=True)
class Resources:
    """The resources of one process.

    Attributes:
        program: what it runs.
        private: bytes of anonymous memory. Unlike shared memory, other processes do not change it.
        rss: bytes, including pages of files.
        files: open file descriptors; ``sockets`` counts the sockets among them.
        tasks: unfinished asyncio tasks; ``None`` if they were not counted.
        must_count: whether a count is required: in parts of a run, and in every busy Ray worker.
    """

    program: str
    private: int
    rss: int
    threads: int
    files: int
    sockets: int
    tasks: int | None
    must_count: bool = False


def read_resources(processes: Sequence[Process], task_counts: Path) -> dict[int, Resources]:
    """Process ID → resources; processes that end meanwhile are left out.

    Args:
        task_counts: the folder that ``task_counter/sitecustomize.py`` writes to.
    """
    resources = {}
    for process in processes:
        with suppress(OSError):
            resources[process.pid] = _read(process, task_counts / str(process.pid))
    return resources


def _read(process: Process, task_counts: Path) -> Resources:
    folder = Path(f"/proc/{process.pid}")
    lines = (folder / "status").read_text(encoding="utf-8", errors="replace").splitlines()
    status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    targets = []
    for name in os.listdir(folder / "fd"):  # noqa: PTH208
        with suppress(OSError):  # closed in the meantime
            targets.append(os.readlink(folder / "fd" / name))  # noqa: PTH115
    return Resources(
        program=process.program,
        private=int(status["RssAnon"][0]) * 1024,
        rss=int(status["VmRSS"][0]) * 1024,
        threads=int(status["Threads"][0]),
        files=len(targets),
        sockets=sum(target.startswith("socket:") for target in targets),
        tasks=_last_count(task_counts),
        must_count=process.program in PROGRAMS or _is_busy_worker(process),
    )


def _is_busy_worker(process: Process) -> bool:
    title = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    return title.startswith(b"ray::") and process.program != _IDLE


def _last_count(path: Path) -> int | None:
    with suppress(OSError):
        lines = path.read_text(encoding="ascii").splitlines()
        counted_s, tasks = lines[-1].split() if lines else ("-inf", "0")
        return int(tasks) if monotonic() - float(counted_s) <= _OLDEST_COUNT_S else None
    return None


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The growth of a process between two readings that still counts as flat.

    Attributes:
        share, size: growth of the private memory: a share of it, or bytes; the larger of the two applies.
        threads, files: more threads and open files.
        tasks: more asyncio tasks, as a multiple of the concurrent calls, since their number fluctuates.
    """

    share: float = 0.10
    size: int = 8_000_000
    threads: int = 4
    files: int = 16
    tasks: float = 4.0


def growths(
    before: Resources, after: Resources, tolerance: Tolerance, calls_at_once: int, *, expected_bytes: int = 0
) -> list[str]:
    """Name what grew beyond the tolerance or was not counted; empty if everything is flat.

    Args:
        expected_bytes: memory growth that is no leak, since the process keeps its results.
    """
    more_tasks = after.tasks - before.tasks if before.tasks is not None and after.tasks is not None else None
    allowed_bytes = max(tolerance.share * before.private, tolerance.size)
    beyond = {
        "memory": after.private - before.private - expected_bytes > allowed_bytes,
        "threads": after.threads - before.threads > tolerance.threads,
        "files": after.files - before.files > tolerance.files,
        "tasks": more_tasks is not None and more_tasks > tolerance.tasks * calls_at_once,
        "tasks not counted": more_tasks is None and (before.must_count or after.must_count),
    }
    return [name for name, is_beyond in beyond.items() if is_beyond]
