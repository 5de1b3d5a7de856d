"""What each process of a command holds at a moment: memory, threads, open files and connections, asyncio tasks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from benchmarks.measuring.family import Member
from benchmarks.measuring.kills import part

_OLDEST_COUNT_S = 60.0
"""A count is written every few seconds; one older than this says nothing of now, even on a busy machine."""
_IDLE = "IDLE"
"""What Ray calls a worker that waits for something to run. It may be seconds old, and not counted yet."""


@dataclass(frozen=True, slots=True)
class Holding:
    """Of one process.

    Attributes:
        program: what it runs.
        own: bytes of memory that is no file's. Other processes do not change it, as they do what is shared.
        rss: bytes, with files' pages.
        threads: all of them.
        files: open file descriptors, and ``sockets`` those of them that are sockets.
        tasks: asyncio tasks that are not done; ``None`` where they were not counted.
        must_count: whether they should have been: in parts of a run, and in every Ray worker that runs something.
    """

    program: str
    own: int
    rss: int
    threads: int
    files: int
    sockets: int
    tasks: int | None
    must_count: bool = False


def weigh(members: Sequence[Member], census: Path) -> dict[int, Holding]:
    """Process number → what it holds; those that end meanwhile are left out.

    Args:
        census: folder with a file for each process that counts its tasks.
    """
    holdings = {}
    for member in members:
        with suppress(OSError):
            holdings[member.pid] = _holding(member, census / str(member.pid))
    return holdings


def _holding(member: Member, census: Path) -> Holding:
    process = Path(f"/proc/{member.pid}")
    lines = (process / "status").read_text(encoding="utf-8", errors="replace").splitlines()
    status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    targets = []
    for name in os.listdir(process / "fd"):  # noqa: PTH208
        with suppress(OSError):  # closed meanwhile
            targets.append(os.readlink(process / "fd" / name))  # noqa: PTH115
    return Holding(
        program=member.program,
        own=int(status["RssAnon"][0]) * 1024,
        rss=int(status["VmRSS"][0]) * 1024,
        threads=int(status["Threads"][0]),
        files=len(targets),
        sockets=sum(target.startswith("socket:") for target in targets),
        tasks=_last_count(census),
        must_count=part(member) is not None or _is_worker(member),
    )


def _is_worker(member: Member) -> bool:
    title = Path(f"/proc/{member.pid}/cmdline").read_bytes()
    return title.startswith(b"ray::") and member.program != _IDLE


def _last_count(path: Path) -> int | None:
    with suppress(OSError):
        lines = path.read_text(encoding="ascii").splitlines()
        counted_s, tasks = lines[-1].split() if lines else ("-inf", "0")
        return int(tasks) if monotonic() - float(counted_s) <= _OLDEST_COUNT_S else None
    return None


@dataclass(frozen=True, slots=True)
class Tolerance:
    """By how much the later of two weighings may exceed the earlier one, and still be called flat.

    Attributes:
        share, size: of the memory of a process: the larger of the two, in bytes.
        threads, files: of its threads, and of its open files.
        tasks: of its tasks, as a share of the calls at once; how many there are differs from moment to moment.
    """

    share: float = 0.10
    size: int = 8_000_000
    threads: int = 4
    files: int = 16
    tasks: float = 4.0


def growths(
    before: Holding, after: Holding, tolerance: Tolerance, calls_at_once: int, *, remembered: int = 0
) -> list[str]:
    """What grew beyond the tolerance or was not counted, in words; empty where everything is flat.

    Args:
        remembered: bytes by which its memory had to grow, since it keeps what it found meanwhile.
    """
    more_tasks = after.tasks - before.tasks if before.tasks is not None and after.tasks is not None else None
    beyond = {
        "memory": after.own - before.own - remembered > max(tolerance.share * before.own, tolerance.size),
        "threads": after.threads - before.threads > tolerance.threads,
        "files": after.files - before.files > tolerance.files,
        "tasks": more_tasks is not None and more_tasks > tolerance.tasks * calls_at_once,
        "tasks not counted": more_tasks is None and (before.must_count or after.must_count),
    }
    return [name for name, is_beyond in beyond.items() if is_beyond]
