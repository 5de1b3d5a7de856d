"""Searches files and Ray's memory for planted secrets."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.commands import Started

CANARY = b"canary"
"""A part of every planted secret."""


def leaks(folder: Path) -> list[str]:
    """The files below a folder that hold a canary, except the key file itself."""
    found = []
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            if path != folder / "key" and stat.S_ISREG(path.lstat().st_mode) and CANARY in path.read_bytes():
                found.append(str(path))
    return found


def memory_of_gcs(command: Started) -> bytes:
    """The heap of Ray's GCS server: jobs, actors with their arguments, environments, keys and values.

    Not its environment variables, which every process inherits.
    """
    for number in command.numbers():
        process = Path(f"/proc/{number}")
        if "gcs_server" in (process / "cmdline").read_text(encoding="utf-8").split("\0")[0]:
            with (process / "mem").open("rb", buffering=0) as memory:
                return b"".join(_heap(process, memory))
    raise AssertionError("no gcs_server")


def _heap(process: Path, memory: Any) -> Iterator[bytes]:
    for line in (process / "maps").read_text(encoding="utf-8").splitlines():
        limits, access, _, _, _, *name = line.split(maxsplit=5)
        if access.startswith("rw") and (not name or name[0] == "[heap]"):
            start, end = (int(limit, 16) for limit in limits.split("-"))
            with suppress(OSError):  # unmapped by now, or never written
                memory.seek(start)
                yield memory.read(end - start)
