"""The completion store of one machine: a SQLite file."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import sqlite3
import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from gpo.cache.sqlite_file import Action, CompletionFile, Request
from gpo.cache.store import Missing
from gpo.models.protocol import Completion

log = logging.getLogger(__name__)

DEFAULT_MAX_BYTES = 1_000_000_000
_RENEW_S = 3.0
_MAX_BATCH = 1000
_MAX_LOAD = 0.1
"""Share of the time that the thread may spend on requests that nothing waits for. In the remaining time it collects
more of them. Waiting for other processes that use the file does not count."""
_MAX_COLLECTING_S = 0.02
"""Longest collecting time. A process that is killed loses the requests that it collects or writes at that moment."""
_CLOSE_TIMEOUT_S = 2.0

_Answer = Completion | Missing | None


@dataclass(frozen=True, slots=True)
class SqliteStore:
    """Completions in a file on this machine; see ``gpo.cache.store.CompletionStore``.

    The event loop is never blocked: one thread per process and file serves requests in batches, one transaction each.
    Since a transaction costs as much as its content, the thread waits some milliseconds for more completions to store
    after it was busy; a process that is killed loses the completions of these milliseconds.

    Args:
        path: path of the file; created if missing.
        max_bytes: bound on the file's size; the least recently used completions are removed first.
    """

    path: Path
    max_bytes: int = DEFAULT_MAX_BYTES

    async def find(self, key: bytes) -> Completion | Missing:
        """The completion, or why it is missing; see ``gpo.cache.store.CompletionStore``."""
        answer = await self._file_thread.ask(Request(Action.FIND, key))
        return Missing.CLAIMED if answer is None else answer

    async def put(self, key: bytes, completion: Completion) -> None:
        """Store a completion; see ``gpo.cache.store.CompletionStore``."""
        self._file_thread.send(Request(Action.PUT, key, completion))

    async def release(self, key: bytes) -> None:
        """End a claim; see ``gpo.cache.store.CompletionStore``."""
        self._file_thread.send(Request(Action.RELEASE, key))

    @property
    def _file_thread(self) -> _FileThread:
        return _file_thread(self.path, self.max_bytes, os.getpid())


class _Queued(NamedTuple):
    request: Request
    loop: asyncio.AbstractEventLoop | None = None
    future: asyncio.Future[_Answer] | None = None


class _FileThread:
    """The thread that uses the file, from the first request to the end of the process."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path, self._max_bytes = path, max_bytes
        self._queue: deque[_Queued | None] = deque()
        # One wake-up for many requests: while the thread works or collects, a new one costs no switch between threads.
        self._is_queued, self._is_urgent = threading.Event(), threading.Event()
        self._file: CompletionFile | None = None
        self._collect_until = 0.0
        self.failed = False
        self._thread = threading.Thread(target=self._work, name="completions", daemon=True)
        self._thread.start()
        atexit.register(self.end)

    def send(self, request: Request) -> None:
        """Queue a request without waiting for it; requests are served in order."""
        if not self.failed:
            self._queue.append(_Queued(request))
            if not self._is_queued.is_set():
                self._is_queued.set()

    async def ask(self, request: Request) -> _Answer:
        """The answer of the file; ``None`` if the file has failed."""
        if self.failed:
            return None
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_Answer] = loop.create_future()
        self._put_urgent(_Queued(request, loop, future))
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():  # answered at the same moment
                self._undo(request, future.result())
            raise

    def end(self) -> None:
        """Close the file, so that opening it again needs no recovery."""
        if not self._thread.is_alive():  # in a forked child, which may have inherited a lock that nobody releases
            return
        self._put_urgent(None)
        self._thread.join(_CLOSE_TIMEOUT_S)

    def _put_urgent(self, item: _Queued | None) -> None:
        self._queue.append(item)
        if not (self._is_urgent.is_set() and self._is_queued.is_set()):
            self._is_urgent.set()
            self._is_queued.set()

    def _work(self) -> None:
        is_open = True
        while is_open:
            batch = self._next_batch()
            queued = [item for item in batch if item is not None]
            is_open = len(queued) == len(batch)
            before = time.thread_time()
            answers = self._answers([item.request for item in queued])
            worked_s = time.thread_time() - before
            self._collect_until = time.monotonic() + min(_MAX_COLLECTING_S, worked_s * (1 / _MAX_LOAD - 1))
            by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Queued, _Answer]]] = defaultdict(list)
            for item, answer in zip(queued, answers, strict=True):
                if item.loop is not None:
                    by_loop[item.loop].append((item, answer))
            for loop, answered in by_loop.items():
                try:
                    loop.call_soon_threadsafe(self._deliver, answered)
                except RuntimeError:  # the loop is closed, so nothing waits for the answers
                    continue
        if self._file is not None:
            self._file.close()

    def _next_batch(self) -> list[_Queued | None]:
        """The queued requests, or the next ones; empty when it is time to renew the claims."""
        if self._is_queued.wait(_RENEW_S):
            self._is_urgent.wait(max(0.0, self._collect_until - time.monotonic()))
        # Cleared first: a request that comes later sets them again.
        self._is_queued.clear()
        self._is_urgent.clear()
        batch = [self._queue.popleft() for _ in range(min(len(self._queue), _MAX_BATCH))]
        if self._queue:
            self._is_queued.set()
            self._is_urgent.set()
        return batch

    def _answers(self, requests: list[Request]) -> list[_Answer]:
        nothing: list[_Answer] = [None] * len(requests)
        if self.failed:
            return nothing
        try:
            if self._file is None:
                if not requests:
                    return nothing
                self._file = CompletionFile(self._path, self._max_bytes)
            self._file.renew()
            return self._file.serve(requests)
        except Exception as error:  # a damaged file can raise anything, and callers must not wait forever
            self._fail(error)
            return nothing

    def _fail(self, error: Exception) -> None:
        self.failed = True
        log.warning(
            "the completion cache %s is no longer used by this process: %s; earlier calls may be repeated "
            "(if the file is damaged, remove it; cache.kind: none disables the cache)",
            self._path,
            error,
        )
        if self._file is not None:
            try:
                self._file.close()
            except sqlite3.Error:
                log.debug("closing %s failed", self._path, exc_info=True)
            self._file = None

    def _deliver(self, answered: list[tuple[_Queued, _Answer]]) -> None:
        for item, answer in answered:
            if item.future is not None and not item.future.done():
                item.future.set_result(answer)
            else:
                self._undo(item.request, answer)

    def _undo(self, request: Request, answer: _Answer) -> None:
        """Undo a request whose caller was cancelled: release its claim."""
        if answer is Missing.CLAIMED:
            self.send(Request(Action.RELEASE, request.key))


@cache
def _file_thread(path: Path, max_bytes: int, _pid: int) -> _FileThread:  # a forked child has no thread of its parent
    return _FileThread(path, max_bytes)
