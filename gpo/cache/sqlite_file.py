"""Completions in a SQLite file that several processes use at once."""

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
from gpo.process import ProcessIdentity

_APPLICATION_ID = 0x47504F43  # "GPOC", in the file's header
_VERSION = 1
_LOCKED_S = 5.0
_LEASE_S = 10.0
_USED_AGAIN_S = 60.0
"""How old the time of the last use may become. With every hit written down, a hit would cost as much as a miss."""
_KEYS_AT_ONCE = 500
_PURGED_TO = 0.9
"""Share of the bound that eviction leaves, so that it does not come with every completion."""
_LOOKS = 100
"""How often the size is looked at while the file's worth of completions is written."""

_SCHEMA = (
    "CREATE TABLE completions (key BLOB PRIMARY KEY, used REAL NOT NULL, record BLOB NOT NULL)",
    "CREATE INDEX completions_by_use ON completions (used)",
    "CREATE TABLE claims (key BLOB PRIMARY KEY, holder TEXT NOT NULL, expires REAL NOT NULL) WITHOUT ROWID",
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_VERSION}",
)


class Action(Enum):
    """What is asked of the file; see ``gpo.cache.store``."""

    FIND = "find"
    PUT = "put"
    RELEASE = "release"


class Request(NamedTuple):
    """One thing asked; ``completion`` comes with a ``PUT`` alone."""

    action: Action
    key: bytes
    completion: Completion | None = None


class UnusableFile(Exception):
    """There is a file, but not one of ours, or not of this version."""


class CompletionFile:
    """An open file, for one thread.

    Args:
        path: of the file, made where there is none, with its folder; only its owner may read it.
        max_bytes: bound on the file's size, which each process may pass by a hundredth and a transaction's worth; those
            completions go first whose last use is longest ago.

    Raises:
        sqlite3.Error, OSError: damaged, locked, read-only, full. Likewise from every method; the file is to be closed
            then.
        UnusableFile: another program's, or of another version.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        # More than one of a process may have the file open.
        self._holder = f"{uuid4().hex} {ProcessIdentity.current().encode()}"
        self._held: set[bytes] = set()
        self._renewed = 0.0
        self._added_bytes = max_bytes  # since the size was looked at: the bound may be lower than it was
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # SQLite gives its further files the rights that this one has.
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
        # Others who open a new file at the same moment hold a lock that SQLite does not wait for here.
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
            raise UnusableFile("the file is another program's")
        if (version := self._number("PRAGMA user_version")) != _VERSION:
            raise UnusableFile(f"the file is of version {version}, not {_VERSION}")
        return False

    def close(self) -> None:
        """Close the file; claims that are held run out by themselves."""
        self._sql.close()

    def serve(self, requests: Sequence[Request]) -> list[Completion | Missing | None]:
        """Do what is asked, in order and in one transaction; something for each ``FIND``, ``None`` for the others."""
        now = time.time()
        # What is written here, too, is looked up when it is its turn.
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
                if now - used > _USED_AGAIN_S:
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
        if self._added_bytes > self._max_bytes // _LOOKS:
            self._evict()
            self._added_bytes = 0
        return served

    def renew(self) -> None:
        """Have the claims that are held last for some seconds more; to be called at least every few seconds."""
        now = time.time()
        if self._held and not 0 <= now - self._renewed < _LEASE_S / 4:
            with self._transaction():
                self._sql.execute("UPDATE claims SET expires = ? WHERE holder = ?", (now + _LEASE_S, self._holder))
            self._renewed = now

    def _written(self, request: Request, now: float) -> Completion | Missing | None:
        action, key, completion = request
        if action is Action.FIND:
            # Another process may have made it since we looked.
            for _, _, record in self._rows([key]):
                if (found := decode(key, record)) is not None:
                    return found
            return self._claim(key, now)
        if completion is not None:
            record = encode(key, completion)
            if len(record) <= self._max_bytes // 10:  # a single one shall not drive out all the others
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
            if not _is_gone(holder):
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
        """Those that somebody is making who is alive, as far as one can tell."""
        found: dict[bytes, str] = {}
        for some in _chunks(keys):
            marks = ",".join("?" * len(some))
            query = f"SELECT key, holder FROM claims WHERE expires >= ? AND key IN ({marks})"  # noqa: S608  # question marks
            found.update(self._sql.execute(query, (now, *some)))
        gone = {holder for holder in set(found.values()) if _is_gone(holder)}
        return {key for key, holder in found.items() if holder not in gone}

    def _evict(self) -> None:
        if self._used_bytes() > self._max_bytes:
            while self._used_bytes() > _PURGED_TO * self._max_bytes:
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


def _is_gone(holder: str) -> bool:
    process = ProcessIdentity.parse(holder.partition(" ")[2])
    return process is not None and process.has_certainly_ended


def _chunks(keys: Iterable[bytes]) -> Iterator[list[bytes]]:
    rest = iter(keys)
    while some := list(islice(rest, _KEYS_AT_ONCE)):
        yield some
