"""The SQLite file of a completion store, which several processes use at once."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from gpo.cache.store import Missing, decode, encode
from gpo.models.protocol import Completion
from gpo.runtime.process import ProcessIdentity

_APPLICATION_ID = 0x47504F43  # "GPOC", in the file's header
_VERSION = 1
_LOCKED_S = 5.0
_LEASE_S = 10.0
_USE_ACCURACY_S = 60.0
"""How inaccurate the time of the last use may be. If every hit were written, hits would cost as much as misses."""
_MAX_KEYS = 500
_EVICTION_TARGET = 0.9
"""Share of the bound that eviction leaves, so that not every completion needs an eviction."""
_SIZE_CHECKS = 100
"""How often the size is checked while completions of the bound's size are written."""

_SCHEMA = (
    "CREATE TABLE completions (key BLOB PRIMARY KEY, used REAL NOT NULL, record BLOB NOT NULL)",
    "CREATE INDEX completions_by_use ON completions (used)",
    "CREATE TABLE claims (key BLOB PRIMARY KEY, holder TEXT NOT NULL, expires REAL NOT NULL) WITHOUT ROWID",
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_VERSION}",
)


class Action(Enum):
    """What a request does; see ``gpo.cache.store``."""

    FIND = "find"
    PUT = "put"
    RELEASE = "release"


class Request(NamedTuple):
    """A request to the file; only ``PUT`` has a completion."""

    action: Action
    key: bytes
    completion: Completion | None = None


class UnusableFile(Exception):
    """The file belongs to another program or to another version."""


class CompletionFile:
    """An open file, for one thread.

    Args:
        path: path of the file. It and its folder are created if missing; only the owner may read them.
        max_bytes: bound on the file's size; each process may exceed it by 1 % and one transaction. The least recently
            used completions are removed first.

    Raises:
        sqlite3.Error, OSError: the file is damaged, locked, read-only or full. Every method may raise these; close the
            file then.
        UnusableFile: the file belongs to another program or to another version.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        # A process may have the file open more than once.
        self._holder = f"{uuid4().hex} {ProcessIdentity.current().encode()}"
        self._held: set[bytes] = set()
        self._renewed = 0.0
        self._added_bytes = max_bytes  # since the last size check; the first request needs one
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # SQLite gives its other files the same permissions.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        self._sql = sqlite3.connect(path, timeout=_LOCKED_S, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
        except BaseException:
            self._sql.close()
            raise

    def _prepare(self) -> None:
        if self._is_new():
            self._sql.execute("PRAGMA auto_vacuum = INCREMENTAL")
        # Another process that opens a new file at the same moment holds a lock that SQLite does not wait for here.
        deadline = time.monotonic() + _LOCKED_S
        while True:
            try:
                self._sql.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        self._sql.execute("PRAGMA synchronous = NORMAL")
        with self._transaction():
            if self._is_new():
                for statement in _SCHEMA:
                    self._sql.execute(statement)

    def _is_new(self) -> bool:
        if self._number("SELECT count(*) FROM sqlite_master") == 0:
            return True
        if self._number("PRAGMA application_id") != _APPLICATION_ID:
            raise UnusableFile("the file belongs to another program")
        if (version := self._number("PRAGMA user_version")) != _VERSION:
            raise UnusableFile(f"the file has version {version}, not {_VERSION}")
        return False

    def close(self) -> None:
        """Close the file; the claims that it holds expire."""
        self._sql.close()

    def serve(self, requests: Sequence[Request]) -> list[Completion | Missing | None]:
        """Serve requests in order, in one transaction; the answer to each ``FIND``, and ``None`` for the others."""
        now = time.time()
        # Keys that this batch also writes are looked up in their turn.
        written = {request.key for request in requests if request.action is not Action.FIND}
        wanted = [request.key for request in requests if request.action is Action.FIND and request.key not in written]
        kept = {key: (used, record) for key, used, record in self._rows(wanted)}
        claimed = self._claimed([key for key in wanted if key not in kept], now)
        served: list[Completion | Missing | None] = [None] * len(requests)
        rest: list[int] = []
        used_again: list[bytes] = []
        for index, (action, key, _) in enumerate(requests):
            if action is Action.FIND and key in kept:
                used, record = kept[key]
                served[index] = decode(key, record)
                if now - used > _USE_ACCURACY_S:
                    used_again.append(key)
            elif action is Action.FIND and key in claimed:
                served[index] = Missing.ELSEWHERE
            if served[index] is None:
                rest.append(index)
        if rest or used_again:
            with self._transaction():
                self._sql.executemany(
                    "UPDATE completions SET used = ? WHERE key = ?", ((now, key) for key in used_again)
                )
                for index in rest:
                    served[index] = self._written(requests[index], now)
        if self._added_bytes > self._max_bytes // _SIZE_CHECKS:
            self._evict()
            self._added_bytes = 0
        return served

    def renew(self) -> None:
        """Extend the claims that this object holds; call it at least every few seconds."""
        now = time.time()
        if self._held and not 0 <= now - self._renewed < _LEASE_S / 4:
            with self._transaction():
                self._sql.execute("UPDATE claims SET expires = ? WHERE holder = ?", (now + _LEASE_S, self._holder))
            self._renewed = now

    def _written(self, request: Request, now: float) -> Completion | Missing | None:
        action, key, completion = request
        if action is Action.FIND:
            # Another process may have stored it meanwhile.
            for _, _, record in self._rows([key]):
                if (found := decode(key, record)) is not None:
                    return found
            return self._claim(key, now)
        if completion is not None:
            record = encode(key, completion)
            if len(record) <= self._max_bytes // 10:  # a single completion must not evict all others
                self._sql.execute("INSERT OR REPLACE INTO completions VALUES (?, ?, ?)", (key, now, record))
                self._added_bytes += len(record)
        self._held.discard(key)
        self._sql.execute("DELETE FROM claims WHERE key = ? AND holder = ?", (key, self._holder))
        return None

    def _claim(self, key: bytes, now: float) -> Missing:
        done = self._sql.execute(
            "INSERT INTO claims VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE "
            "SET holder = excluded.holder, expires = excluded.expires WHERE claims.expires < ?",
            (key, self._holder, now + _LEASE_S, now),
        )
        if done.rowcount == 0:
            ((holder,),) = self._sql.execute("SELECT holder FROM claims WHERE key = ?", (key,)).fetchall()
            if not _has_ended(holder):
                return Missing.ELSEWHERE
            self._sql.execute(
                "UPDATE claims SET holder = ?, expires = ? WHERE key = ?", (self._holder, now + _LEASE_S, key)
            )
        self._held.add(key)
        return Missing.CLAIMED

    def _rows(self, keys: Sequence[bytes]) -> Iterator[tuple[bytes, float, bytes]]:
        for some in _chunks(keys):
            marks = ",".join("?" * len(some))
            query = f"SELECT key, used, CAST(record AS BLOB) FROM completions WHERE key IN ({marks})"  # noqa: S608  # question marks
            yield from self._sql.execute(query, some)

    def _claimed(self, keys: Sequence[bytes], now: float) -> set[bytes]:
        """The keys whose claim is held by a process that has not certainly ended."""
        found: dict[bytes, str] = {}
        for some in _chunks(keys):
            marks = ",".join("?" * len(some))
            query = f"SELECT key, holder FROM claims WHERE expires >= ? AND key IN ({marks})"  # noqa: S608  # question marks
            found.update(self._sql.execute(query, (now, *some)))
        ended = {holder for holder in set(found.values()) if _has_ended(holder)}
        return {key for key, holder in found.items() if holder not in ended}

    def _evict(self) -> None:
        if self._used_bytes() > self._max_bytes:
            while self._used_bytes() > _EVICTION_TARGET * self._max_bytes:
                oldest = "SELECT key FROM completions ORDER BY used LIMIT 50"
                done = self._sql.execute(f"DELETE FROM completions WHERE key IN ({oldest})")  # noqa: S608
                if done.rowcount == 0:
                    break
        if self._number("PRAGMA page_count") * self._page_bytes > self._max_bytes:
            self._sql.executescript("PRAGMA incremental_vacuum")  # `execute` would free a single page

    def _used_bytes(self) -> int:
        pages = self._number("PRAGMA page_count") - self._number("PRAGMA freelist_count")
        return pages * self._page_bytes

    @property
    def _page_bytes(self) -> int:
        return self._number("PRAGMA page_size")

    def _number(self, query: str) -> int:
        (number,) = self._sql.execute(query).fetchone()
        return int(number)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._sql.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._sql.in_transaction:
                self._sql.execute("ROLLBACK")
            raise
        self._sql.execute("COMMIT")


def _has_ended(holder: str) -> bool:
    process = ProcessIdentity.parse(holder.partition(" ")[2])
    return process is not None and process.has_certainly_ended


def _chunks(keys: Iterable[bytes]) -> Iterator[list[bytes]]:
    rest = iter(keys)
    while some := list(islice(rest, _MAX_KEYS)):
        yield some
