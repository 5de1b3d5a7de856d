"""Numbers by name, in memory that outlives the process which writes them, however it ends."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from pathlib import Path

_BYTES = 8
_FIRST_CAPACITY = 8192


class Numbers:
    """Numbers in a file that is mapped into memory, named in a file beside it: line by line, in the same order.

    What is stored is in the kernel's hands at once: a process that is killed takes nothing with it, and to store a
    number costs no system call. One process writes, several may read. Not safe in several threads.

    Args:
        path: of the numbers; is made, and its file of names.

    Attributes:
        values: one for each place. A reference that is kept is good for the places that were there when it was taken.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("x+b")
        self._names = names_of(path).open("xb", buffering=0)
        self._length = 0
        self.values = self._mapped(_FIRST_CAPACITY)

    def place(self, name: str) -> int:
        """A new place in ``values``, with 0 in it.

        Args:
            name: of one line.
        """
        if self._length == len(self.values):
            # The mapping before stays as it is: both show the same memory.
            self.values = self._mapped(2 * self._length)
        self._names.write(f"{name}\n".encode())
        self._length += 1
        return self._length - 1

    def _mapped(self, capacity: int) -> memoryview[float]:
        # A file with a hole: what was never written takes no memory.
        os.ftruncate(self._file.fileno(), capacity * _BYTES)
        return memoryview(mmap.mmap(self._file.fileno(), capacity * _BYTES)).cast("d")


def names_of(path: Path) -> Path:
    """The file of names beside one of numbers."""
    return path.with_suffix(".names")


def read(path: Path) -> Mapping[str, float]:
    """Name → number. Of a name that was being written when its process was killed, nothing."""
    *names, _ = names_of(path).read_bytes().split(b"\n")
    with path.open("rb") as file:
        values = memoryview(file.read(len(names) * _BYTES)).cast("d")
    return {name.decode(): value for name, value in zip(names, values, strict=True)}
