"""Who may work in a folder: one process at a time.

A lease is a numbered file in ``.lease/`` that says who holds it and until when; the highest number counts, and the
numbers only grow. To take a lease over is to create the file with the next number, which can succeed for one only, and
to find it the highest afterwards. The holder writes its own file anew while it works. So there is nothing to lock, a
holder that died is outlived by no more than its term, and one that was suspended for longer sees a higher number than
its own and stops. That is all a ``Fence`` looks at: every process of a run looks before it writes.

What it rests on: object stores list what was just written (all do), hosts' clocks differ by less than
``TERM_S - RENEWED_EVERY_S``, and nobody is suspended for long just between a look and the write after it.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from actors.folder import Folder
from actors.holder import Holder
from gpo.errors import StorageError

TERM_S = 60.0
"""How long a lease holds after it was renewed last, in seconds."""
RENEWED_EVERY_S = 15.0
SETTLE_S = 2.0
"""Within this time after they looked, those who want a lease have written, in a store that lets several create the same
file; and a file that was found while it was being written is complete."""

_FILE = re.compile(r"(\d+)\.json")


class LeaseLost(StorageError):
    """Another process has taken the folder over: what this one would write now would spoil the other's work."""


class LeaseHeld(StorageError):
    """Another process works in the folder.

    Attributes:
        until: Unix time at which its lease runs out unless it renews it, where it may have died without our seeing it;
            ``None`` where it is there.
    """

    def __init__(self, message: str, until: float | None = None) -> None:
        super().__init__(message)
        self.until = until


class Term(BaseModel):
    """What a lease says.

    Attributes:
        since, until: Unix time in seconds; it is over then.
        released: whether the holder was done with it, before that.
    """

    model_config = ConfigDict(frozen=True)

    holder: Holder
    since: float
    until: float
    released: bool = False

    @property
    def is_over(self) -> bool:
        """Whether another may take the folder over."""
        return self.released or time.time() >= self.until or self.holder.is_known_dead


@dataclass(frozen=True, slots=True)
class Fence:
    """Keeps a process out that has lost its lease. A value: it travels to wherever somebody writes for the holder.

    Attributes:
        place: the folder of the lease's files.
        number: of the lease under which is written.
    """

    place: Folder
    number: int

    def check(self) -> None:
        """Look whether the lease still counts.

        Raises:
            LeaseLost: it does not.
            OSError: the folder cannot be looked into.
        """
        newest = max(_numbers(self.place), default=None)
        if newest == self.number:
            return
        where = self.place.url.rpartition("/")[0]
        if newest is None:
            raise LeaseLost(f"the lease on {where!r} has been removed; resume the run once nobody else works there")
        term = _term(self.place, newest)
        by = f"{term.holder} at {_clock(term.since)}" if term else "another process"
        raise LeaseLost(
            f"{where!r} was taken over by {by}, after this process had been silent for {TERM_S:.0f} s; it writes "
            "nothing more there"
        )


class Lease:
    """The right to work in a folder, held by this process; see ``take``."""

    def __init__(self, fence: Fence, term: Term) -> None:
        self.fence, self._term = fence, term

    @classmethod
    def take(cls, folder: Folder) -> Lease:
        """Take the folder's lease, or take it over from a holder that is done, dead or was silent for too long.

        Raises:
            LeaseHeld: another process works there.
            OSError: the folder cannot be read or written.
        """
        place = folder / ".lease"
        number, term = _newest(place)
        if term is not None and not term.is_over:
            raise _held(folder, term)
        now = time.time()
        fence, term = Fence(place, number + 1), Term(holder=Holder.this_process(), since=now, until=now + TERM_S)
        if not _is_created(fence, term):
            _, other = _newest(place)
            raise _held(folder, other)
        for earlier in _numbers(place):
            if earlier < fence.number:
                with suppress(OSError):  # it counts no more, wherever it stays
                    place.remove(_name(earlier))
        return cls(fence, term)

    def renew(self) -> None:
        """Hold it for another ``TERM_S``.

        Raises:
            LeaseLost: another process holds it.
            OSError: the folder cannot be read or written.
        """
        self.fence.check()
        self._term = self._term.model_copy(update={"until": time.time() + TERM_S})
        self._write()

    def release(self) -> None:
        """Let others have it at once. The file stays: the next one's number follows on it.

        Raises:
            LeaseLost: another process holds it already.
            OSError: the folder cannot be read or written.
        """
        self.fence.check()
        self._term = self._term.model_copy(update={"released": True})
        self._write()

    def _write(self) -> None:
        # Renewed again soon, and a lease that is not released runs out: there is no use in patience.
        self.fence.place.write(_name(self.fence.number), _encoded(self._term), patience_s=0)


def _is_created(fence: Fence, term: Term) -> bool:
    """Whether the lease's file is there, with this content, and its number is the highest."""
    place, name, content = fence.place, _name(fence.number), _encoded(term)
    # Where it was not created, it may still be ours: an answer was lost, and the client asked again.
    if place.create(name, content) and place.create(name, content):
        # A store that creates what is there already lets several do so; the last one's content stays.
        time.sleep(SETTLE_S)
    return place.read(name) == content and max(_numbers(place), default=0) == fence.number


def _newest(place: Folder) -> tuple[int, Term | None]:
    """The highest number, or 0, and what its file says; ``None`` where there is none, or it is damaged for good."""
    number = max(_numbers(place), default=0)
    if number == 0:
        return 0, None
    term = _term(place, number)
    if term is None:  # still being written, or just taken over
        time.sleep(SETTLE_S)
        number = max(_numbers(place), default=0)
        term = _term(place, number)
    return number, term


def _term(place: Folder, number: int) -> Term | None:
    content = place.read(_name(number))
    try:
        return None if content is None else Term.model_validate_json(content)
    except ValidationError:
        return None


def _numbers(place: Folder) -> list[int]:
    return [int(found[1]) for name in place.names() if (found := _FILE.fullmatch(name))]


def _name(number: int) -> str:
    return f"{number:06d}.json"


def _encoded(term: Term) -> bytes:
    return term.model_dump_json().encode()


def _held(folder: Folder, term: Term | None) -> LeaseHeld:
    if term is None:
        return LeaseHeld(f"another process has just begun to work in {folder.url!r}")
    return LeaseHeld(
        f"{folder.url!r} is at work: {term.holder} holds it since {_clock(term.since)} and, unless it goes on, until "
        f"{_clock(term.until)}",
        until=None if term.holder.is_near else term.until,
    )


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
