"""A process, so that others can say which it is, and those on its machine whether it is still there."""

from __future__ import annotations

import atexit
import logging
import os
import re
import secrets
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from actors.folder import Folder
from gpo.errors import StorageError
from gpo.process import has_ended, process_space, process_start


class Holder(BaseModel):
    """Who holds a lease.

    Attributes:
        id: different for every holder there has ever been.
        host: the machine's name.
        pid: the process's number there.
        started: when it began, in the machine's own ticks: numbers are given out again. ``None`` where unknown.
        space: where its number means anything: this boot of that machine, and the container. ``None`` where unknown.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    host: str
    pid: int
    started: str | None
    space: str | None

    @classmethod
    def this_process(cls) -> Self:
        """The process that asks, as a holder of its own."""
        pid = os.getpid()
        return cls(
            id=secrets.token_hex(8),
            host=socket.gethostname(),
            pid=pid,
            started=process_start(pid),
            space=process_space(),
        )

    @property
    def is_near(self) -> bool:
        """Whether it would be seen from here that the process has ended."""
        return self.space is not None and self.started is not None and self.space == process_space()

    @property
    def is_known_dead(self) -> bool:
        """Whether the process has certainly ended; never for one that cannot be seen from here."""
        return self.is_near and has_ended(self.pid, self.started or "")

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


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


log = logging.getLogger(__name__)


class Leases:
    """Takes leases on folders, renews them in a thread of its own, and releases them in the end.

    A context manager; what is not left by it is released when the interpreter exits.

    Args:
        renewed_every_s: how often they are renewed, in seconds.
    """

    def __init__(self, renewed_every_s: float = RENEWED_EVERY_S) -> None:
        self._renewed_every_s = renewed_every_s
        self._held: dict[str, Lease] = {}
        self._lost: LeaseLost | None = None
        self._over = threading.Event()
        self._writing = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def take(self, folder: Folder) -> None:
        """Take a folder's lease; see ``Lease.take``. One that is held already stays as it is.

        Raises:
            LeaseHeld, OSError: as there.
        """
        if folder.url in self._held:
            return
        lease = Lease.take(folder)
        if not self._held:
            self._over = threading.Event()
            atexit.register(self.release)
            threading.Thread(target=self._renew_all, args=[self._over], name="leases", daemon=True).start()
        self._held = {**self._held, folder.url: lease}

    def fence(self, folder: Folder) -> Fence | None:
        """What keeps a process out that has lost the folder's lease; ``None`` where none was taken."""
        lease = self._held.get(folder.url)
        return lease.fence if lease else None

    def require_held(self) -> None:
        """Stop, once one of the leases is known to be lost. Asks nobody.

        Raises:
            LeaseLost: it is.
        """
        if self._lost is not None:
            raise LeaseLost(str(self._lost))

    def release(self) -> None:
        """Let others have the folders; a lease that cannot be released runs out."""
        self._over.set()
        with self._writing:  # or a renewal under way would be the last word
            held, self._held = self._held, {}
            for lease in held.values():
                with suppress(LeaseLost, OSError):
                    lease.release()
        atexit.unregister(self.release)

    def _renew_all(self, over: threading.Event) -> None:
        while not over.wait(self._renewed_every_s):
            with self._writing:
                for url, lease in self._held.items():
                    self._renew(url, lease)

    def _renew(self, url: str, lease: Lease) -> None:
        try:
            lease.renew()
        except LeaseLost as lost:
            self._lost = lost
        except OSError as error:  # for now; another process may take it over once it is silent for too long
            log.warning("the lease on %s cannot be renewed: %s", url, error)
