"""How a process keeps count: in a file of its own, which outlives it however it ends."""

from __future__ import annotations

import fcntl
import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import NamedTuple
from uuid import uuid4

from actors.metrics.catalogue import ACTORS, CATALOGUE, Metric
from actors.metrics.mapped_numbers import MappedNumbers, read

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
    """A number that grows, or is set; made by its book, and by that once.

    Attributes:
        place: in the book's values, for who counts several things at once.
    """

    __slots__ = ("_lock", "_values", "place")

    def __init__(self, values: memoryview[float], lock: Lock, place: int) -> None:
        self._values, self._lock, self.place = values, lock, place

    def add(self, amount: float = 1.0) -> None:
        """Count more, or less."""
        with self._lock:
            self._values[self.place] += amount

    def set(self, value: float) -> None:
        """Put a value in place of the one before."""
        with self._lock:
            self._values[self.place] = value


class Distribution:
    """How often values fell where.

    Args:
        buckets: one more than bounds.
    """

    __slots__ = ("_bounds", "_buckets", "total")

    def __init__(self, bounds: tuple[float, ...], buckets: list[Count], total: Count) -> None:
        self._bounds, self._buckets, self.total = bounds, buckets, total

    def bucket(self, value: float) -> Count:
        """Where a value falls; one that equals a bound is not above it."""
        return self._buckets[bisect_left(self._bounds, value)]

    def observe(self, value: float) -> None:
        """Take note of a value."""
        self.bucket(value).add()
        self.total.add(value)


class Book:
    """A process's own file of counts. May be used from several threads.

    Args:
        folder: of this node; made where it is missing, for this user alone.
        run, actor: what the process belongs to, and what it is.

    Attributes:
        lock: held while a number changes.
    """

    def __init__(self, folder: Path, run: str, actor: str) -> None:
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / f"{uuid4().hex}.new"
        self.lock = Lock()
        self._numbers = MappedNumbers(path)
        self._counts: dict[Cell, Count] = {}
        # Held for as long as the process lives, and no longer: so readers tell the dead from the living, whatever
        # happened to process numbers meanwhile.
        self._alive = path.open("rb")
        fcntl.flock(self._alive, fcntl.LOCK_EX)
        self._identity = (run, actor)
        self.count(ACTORS, run, actor).set(1.0)
        path.rename(path.with_suffix(_SUFFIX))  # whole, now that it can be read

    @property
    def values(self) -> memoryview[float]:
        """The numbers of all counts there are by now, at their places."""
        return self._numbers.values

    def count(self, metric: Metric, *labels: str, part: str = VALUE) -> Count:
        """The number of these labels; to be kept by who uses it often, and asked for once."""
        cell = Cell(metric.name, part, labels)
        with self.lock:
            count = self._counts.get(cell)
            if count is None:
                place = self._numbers.place(cell.key)
                count = self._counts[cell] = Count(self.values, self.lock, place)
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
        yield Page(_cells(read(path)), is_alive)


def _cells(values: Mapping[str, float]) -> dict[Cell, float]:
    cells = {}
    for key, value in values.items():
        with suppress(ValueError):  # one that a full disk has cut off
            cell = Cell.of(key)
            if cell.metric in CATALOGUE:
                cells[cell] = value
    return cells


def _is_held(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
