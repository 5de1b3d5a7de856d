"""Leases: at most one process at a time works in a folder.

The folder's ``.lease`` folder holds numbered files; the one with the highest number is the current lease. A process
takes the lease by creating the file with the next number, renews it by rewriting that file, and releases it by a last
rewrite. Another process may take the lease over once it is released, has expired, or belongs to a process of this
machine that has ended. A process whose lease was taken over finds a higher number and stops writing.
"""

from __future__ import annotations

import atexit
import logging
import re
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from actors.folder import Folder
from gpo.errors import StorageError
from gpo.runtime.process import ProcessIdentity

log = logging.getLogger(__name__)

TERM_S = 60.0
"""How long a lease is valid after its last renewal, in seconds."""
RENEWED_EVERY_S = 15.0
SETTLE_S = 2.0
"""How long a write takes at most, in seconds. After that time, all processes that found the lease free have written, in
a store where several can create the same file, and a file that was incomplete when it was found is complete."""

_FILE_NAME = re.compile(r"(\d+)\.json")


class LeaseLost(StorageError):
    """Another process has taken the folder over; writing now would corrupt its work."""


class LeaseHeld(StorageError):
    """Another process works in the folder.

    Attributes:
        until: Unix time at which the lease expires unless it is renewed, if its process may have died unnoticed;
            ``None`` if its process is known to be running.
    """

    def __init__(self, message: str, until: float | None = None) -> None:
        super().__init__(message)
        self.until = until


class _Record(BaseModel):
    """The content of a lease file.

    Attributes:
        id: unique for each lease that was ever taken.
        since, until: Unix time in seconds; the lease expires at ``until``.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    holder: ProcessIdentity
    since: float
    until: float
    released: bool = False

    @property
    def is_over(self) -> bool:
        """Whether another process may take the lease over."""
        return self.released or time.time() >= self.until or self.holder.has_certainly_ended

    def encode(self) -> bytes:
        return self.model_dump_json().encode()


@dataclass(frozen=True, slots=True)
class Fence:
    """Stops a process that has lost its lease. Pickles, so that actors that write for the process can use it.

    Attributes:
        folder: the folder of the lease's files.
        number: of the lease.
    """

    folder: Folder
    number: int

    def check(self) -> None:
        """Return if the lease is still the current one.

        Raises:
            LeaseLost: it is not.
            OSError: the folder cannot be read.
        """
        newest = max(_numbers(self.folder), default=None)
        if newest == self.number:
            return
        url = self.folder.url.rpartition("/")[0]
        if newest is None:
            raise LeaseLost(f"the lease on {url!r} was removed; resume the run once no other process works there")
        record = _read(self.folder, newest)
        new_holder = f"{record.holder} at {_clock(record.since)}" if record else "another process"
        raise LeaseLost(
            f"{url!r} was taken over by {new_holder}, because this process did not renew its lease for {TERM_S:.0f} s; "
            "it writes nothing more there"
        )


class Lease:
    """A folder's lease, held by this process; see ``take``."""

    def __init__(self, fence: Fence, record: _Record) -> None:
        self.fence, self._record = fence, record

    @classmethod
    def take(cls, folder: Folder) -> Lease:
        """Take the folder's lease. A lease that is released, expired, or of a dead process is taken over.

        Raises:
            LeaseHeld: another process works there.
            OSError: the folder cannot be read or written.
        """
        files = folder / ".lease"
        number, current = _newest(files)
        if current is not None and not current.is_over:
            raise _held(folder, current)
        now = time.time()
        record = _Record(id=secrets.token_hex(8), holder=ProcessIdentity.current(), since=now, until=now + TERM_S)
        fence = Fence(files, number + 1)
        if not _create(fence, record):
            raise _held(folder, _newest(files)[1])
        for earlier in _numbers(files):
            if earlier < fence.number:
                with suppress(OSError):  # a file that stays has no effect
                    files.remove(_name(earlier))
        return cls(fence, record)

    def renew(self) -> None:
        """Extend the lease to ``TERM_S`` seconds from now.

        Raises:
            LeaseLost: another process has taken it over.
            OSError: the folder cannot be read or written.
        """
        self.fence.check()
        self._record = self._record.model_copy(update={"until": time.time() + TERM_S})
        self._write()

    def release(self) -> None:
        """Let another process take the lease at once. The file stays, because the next lease's number follows it.

        Raises:
            LeaseLost: another process has taken it over.
            OSError: the folder cannot be read or written.
        """
        self.fence.check()
        self._record = self._record.model_copy(update={"released": True})
        self._write()

    def _write(self) -> None:
        # Without retries: a renewal is repeated soon anyway, and a lease that cannot be released expires.
        self.fence.folder.write(_name(self.fence.number), self._record.encode(), retry_s=0)


class Leases:
    """Takes leases, renews them in a thread, and releases them when its context or the interpreter ends.

    Args:
        renewed_every_s: seconds between renewals.
    """

    def __init__(self, renewed_every_s: float = RENEWED_EVERY_S) -> None:
        self._renewed_every_s = renewed_every_s
        self._held: dict[str, Lease] = {}
        self._lost: LeaseLost | None = None
        self._released = threading.Event()
        self._writing = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def take(self, folder: Folder) -> None:
        """Take a folder's lease, unless it is held already; see ``Lease.take``.

        Raises:
            LeaseHeld, OSError: as there.
        """
        if folder.url in self._held:
            return
        lease = Lease.take(folder)
        if not self._held:
            self._released = threading.Event()
            atexit.register(self.release)
            threading.Thread(target=self._renew_all, args=[self._released], name="leases", daemon=True).start()
        self._held = {**self._held, folder.url: lease}

    def fence(self, folder: Folder) -> Fence | None:
        """The fence of the folder's lease; ``None`` if the lease was not taken."""
        lease = self._held.get(folder.url)
        return lease.fence if lease else None

    def require_held(self) -> None:
        """Raise if a renewal has found that one of the leases is lost; reads no file.

        Raises:
            LeaseLost: a lease is lost.
        """
        if self._lost is not None:
            raise LeaseLost(str(self._lost))

    def release(self) -> None:
        """Release all leases. A lease that cannot be released expires."""
        self._released.set()
        with self._writing:  # a renewal that is being written must not follow the release
            held, self._held = self._held, {}
            for lease in held.values():
                with suppress(LeaseLost, OSError):
                    lease.release()
        atexit.unregister(self.release)

    def _renew_all(self, released: threading.Event) -> None:
        while not released.wait(self._renewed_every_s):
            with self._writing:
                for url, lease in self._held.items():
                    try:
                        lease.renew()
                    except LeaseLost as lost:
                        self._lost = lost
                    except OSError as error:  # if this persists, another process may take the lease over
                        log.warning("the lease on %s cannot be renewed: %s", url, error)


def _create(fence: Fence, record: _Record) -> bool:
    """Write the lease's file; whether it holds this record afterwards and has the highest number."""
    files, name, content = fence.folder, _name(fence.number), record.encode()
    # If the file exists, this process may still have created it: the reply was lost and the client tried again.
    if files.create(name, content) and files.create(name, content):
        # The store lets several processes create the same file. The last one wins.
        time.sleep(SETTLE_S)
    return files.read(name) == content and max(_numbers(files), default=0) == fence.number


def _newest(files: Folder) -> tuple[int, _Record | None]:
    """The highest number, 0 if there is none, and its record; ``None`` if there is none or it is damaged."""
    number = max(_numbers(files), default=0)
    if number == 0:
        return 0, None
    record = _read(files, number)
    if record is None:  # it is still being written, or another process has just replaced it
        time.sleep(SETTLE_S)
        number = max(_numbers(files), default=0)
        record = _read(files, number)
    return number, record


def _read(files: Folder, number: int) -> _Record | None:
    content = files.read(_name(number))
    try:
        return None if content is None else _Record.model_validate_json(content)
    except ValidationError:
        return None


def _numbers(files: Folder) -> list[int]:
    return [int(found[1]) for name in files.names() if (found := _FILE_NAME.fullmatch(name))]


def _name(number: int) -> str:
    return f"{number:06d}.json"


def _held(folder: Folder, record: _Record | None) -> LeaseHeld:
    if record is None:
        return LeaseHeld(f"{folder.url!r} is in use by another process, which has just started there")
    return LeaseHeld(
        f"{folder.url!r} is in use by {record.holder}, which took its lease at {_clock(record.since)}; unless renewed, "
        f"the lease expires at {_clock(record.until)}",
        until=None if record.holder.is_local else record.until,
    )


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
