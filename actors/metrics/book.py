"""How a process keeps count: in a memory-mapped file, which outlives it however it ends.

Each process of a run writes a file of its own, and nobody else does. What is in it is in the kernel's hands the moment
it is written, so a process that is killed takes no count with it, and a count costs no system call. The file's form is
that of ``prometheus_client``'s multi-process mode. The mode itself is not used: it wants a variable set before the
package is first imported in a process, which Ray starts, and it merges by file name what we merge by who is alive.
"""

from __future__ import annotations

import fcntl
import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple
from uuid import uuid4

from prometheus_client import mmap_dict

from actors.metrics.catalogue import ACTORS, CATALOGUE, Metric

# Without types; ``write_value`` and ``read_all_values_from_file`` are what we use of it.
_MmapedDict: Any = mmap_dict.MmapedDict
_SUFFIX = ".count"
CLOSED = "closed"
SUM = "sum"
VALUE = ""
BEGUN = "begun"


class Cell(NamedTuple):
    """A number in a book.

    Attributes:
        metric: its name.
        part: ``VALUE``; of a histogram ``SUM``, or the index of a bucket, which holds what no lower one does;
            ``BEGUN`` counts requests that were begun; ``CLOSED`` is 1 where the process ended as it was meant to.
        labels: values, in the metric's order.
    """

    metric: str
    part: str
    labels: tuple[str, ...]

    @property
    def key(self) -> str:
        """As it stands in the file."""
        return json.dumps([self.metric, self.part, *self.labels])

    @classmethod
    def of(cls, key: str) -> Cell:
        """The inverse of ``key``."""
        metric, part, *labels = json.loads(key)
        return cls(metric, part, tuple(labels))


class Count:
    """A number that grows, or is set; made by its book, and by that once."""

    __slots__ = ("_file", "_key", "_lock", "value")

    def __init__(self, file: Any, lock: Lock, cell: Cell) -> None:
        self._file, self._lock, self._key, self.value = file, lock, cell.key, 0.0
        file.write_value(self._key, 0.0, 0.0)

    def add(self, amount: float = 1.0) -> None:
        """Count more, or less."""
        with self._lock:
            self.value += amount
            self._file.write_value(self._key, self.value, 0.0)

    def set(self, value: float) -> None:
        """Put a value in place of the one before."""
        with self._lock:
            self.value = value
            self._file.write_value(self._key, value, 0.0)


class Distribution:
    """How often values fell where."""

    __slots__ = ("_bounds", "_buckets", "_sum")

    def __init__(self, bounds: tuple[float, ...], buckets: list[Count], total: Count) -> None:
        self._bounds, self._buckets, self._sum = bounds, buckets, total

    def observe(self, value: float) -> None:
        """Take note of a value; one that equals a bound is not above it."""
        self._buckets[bisect_left(self._bounds, value)].add()
        self._sum.add(value)


class Book:
    """A process's own file of counts. May be used from several threads.

    Args:
        folder: of this node; made where it is missing, for this user alone.
        run, actor: what the process belongs to, and what it is.
    """

    def __init__(self, folder: Path, run: str, actor: str) -> None:
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / f"{uuid4().hex}.new"
        self._lock = Lock()
        self._file = _MmapedDict(str(path))
        self._counts: dict[Cell, Count] = {}
        # Held for as long as the process lives, and no longer: so readers tell the dead from the living, whatever
        # happened to process numbers meanwhile.
        self._alive = path.open("rb")
        fcntl.flock(self._alive, fcntl.LOCK_EX)
        self._identity = (run, actor)
        self.count(ACTORS, run, actor).set(1.0)
        path.rename(path.with_suffix(_SUFFIX))  # whole, now that it can be read

    def count(self, metric: Metric, *labels: str, part: str = VALUE) -> Count:
        """The number of these labels; to be kept by who uses it often, and asked for once."""
        cell = Cell(metric.name, part, labels)
        with self._lock:
            count = self._counts.get(cell)
            if count is None:
                count = self._counts[cell] = Count(self._file, self._lock, cell)
        return count

    def distribution(self, metric: Metric, *labels: str) -> Distribution:
        """The histogram of these labels, likewise."""
        buckets = [self.count(metric, *labels, part=str(index)) for index in range(len(metric.buckets) + 1)]
        return Distribution(metric.buckets, buckets, self.count(metric, *labels, part=SUM))

    def close(self) -> None:
        """The process is about to end as it was meant to; counts may go on."""
        self.count(ACTORS, *self._identity, part=CLOSED).set(1.0)


@dataclass(frozen=True, slots=True)
class Page:
    """What a process has counted so far.

    Attributes:
        cells: what is in its book.
        is_alive: whether it may count on.
    """

    cells: Mapping[Cell, float]
    is_alive: bool


def pages(folder: Path) -> Iterator[Page]:
    """The books of a node's processes, of the dead as of the living; none where there is no folder."""
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        # Asked first: one that dies in between has its last counts read as those of a living one, until next time.
        is_alive = _is_held(path)
        values = _MmapedDict.read_all_values_from_file(str(path))
        cells = {Cell.of(key): value for key, value, _, _ in values}
        yield Page({cell: value for cell, value in cells.items() if cell.metric in CATALOGUE}, is_alive)


def _is_held(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
