"""Numbers by name, in memory that outlives the process which writes them, however it ends."""

from __future__ import annotations

import logging
import mmap
import os
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

_BYTES = 8
_FIRST_CAPACITY = 512


class MappedNumbers:
    """Numbers in a file that is mapped into memory; a file beside it says which is which.

    What is stored is in the kernel's hands at once: a process that is killed takes nothing with it, and to store a
    number costs no system call. One process writes, several may read. Not safe in several threads.

    Args:
        path: of the numbers; is made, and its file of names.

    Attributes:
        values: one for each place. A reference that is kept is good for the places that were there when it was taken.

    Raises:
        OSError: there is no room for the first numbers. Where there is none for more, they are kept, and not told.
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
            self.values = self._grown()
        place, self._length = self._length, self._length + 1
        # A line says for itself where its number is, and begins anew whatever became of the one before.
        with suppress(OSError):  # who counts must not fail; the number is not told then
            self._names.write(f"\n{place} {name}\n".encode())
        return place

    def _grown(self) -> memoryview[float]:
        capacity = 2 * self._length
        try:
            return self._mapped(capacity)  # the mapping before stays as it is: both show the same memory
        except OSError as error:
            log.warning("what is counted from now on is not told: %s", error)
            alone = memoryview(mmap.mmap(-1, capacity * _BYTES)).cast("d")
            alone[: self._length] = self.values
            return alone

    def _mapped(self, capacity: int) -> memoryview[float]:
        # With room for all of it: where there is none, a store would end the process.
        os.posix_fallocate(self._file.fileno(), 0, capacity * _BYTES)
        return memoryview(mmap.mmap(self._file.fileno(), capacity * _BYTES)).cast("d")


def names_of(path: Path) -> Path:
    """The file of names beside one of numbers."""
    return path.with_suffix(".names")


def read(path: Path) -> dict[str, float]:
    """Name → number. Of a name that was not written to its end, nothing."""
    *lines, _ = names_of(path).read_bytes().split(b"\n")
    with path.open("rb") as file:
        whole = file.read()
    values = memoryview(whole).cast("d")
    found = {}
    for line in filter(None, lines):
        place, _, name = line.partition(b" ")
        if place.isdigit() and int(place) < len(values):
            found[name.decode(errors="replace")] = values[int(place)]
    return found
