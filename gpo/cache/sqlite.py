"""Completions in a SQLite file: the store of one machine."""

from __future__ import annotations

import asyncio
import atexit
import logging
import sqlite3
import threading
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple

from gpo.cache.sqlite_file import Action, CompletionFile, Request
from gpo.cache.store import Missing
from gpo.models.protocol import Completion

log = logging.getLogger(__name__)

DEFAULT_MAX_BYTES = 1_000_000_000
_RENEW_S = 3.0
_MOST_AT_ONCE = 1000
_SHARE = 0.1
"""Of its time that the thread may work on transactions of what nobody waits for: so long it gathers more. Waiting for
other processes, which have the file as well, is no work."""
_GATHERED_S = 0.02
"""Never longer: what is gathered, and what is being written, is what a process that is killed loses."""
_FAREWELL_S = 2.0

_Answer = Completion | Missing | None


@dataclass(frozen=True, slots=True)
class SqliteStore:
    """Completions in a file on this machine; see ``gpo.cache.store.CompletionStore``.

    Nothing waits on the event loop's thread: one thread per process and file takes all that is asked meanwhile, and
    does it in one transaction. What is put while the thread was busy just before waits some milliseconds for more,
    since a transaction costs as much as what is in it; a process that is killed loses those milliseconds' completions.

    Args:
        path: of the file; made where there is none.
        max_bytes: bound on its size; those completions go first whose last use is longest ago.
    """

    path: Path
    max_bytes: int = DEFAULT_MAX_BYTES

    async def find(self, key: bytes) -> Completion | Missing:
        """The completion, or what to do; see ``gpo.cache.store.CompletionStore``."""
        answer = await self._clerk.ask(Request(Action.FIND, key))
        return Missing.CLAIMED if answer is None else answer

    async def put(self, key: bytes, completion: Completion) -> None:
        """Keep a completion; see ``gpo.cache.store.CompletionStore``."""
        self._clerk.send(Request(Action.PUT, key, completion))

    async def release(self, key: bytes) -> None:
        """Give up a claim; see ``gpo.cache.store.CompletionStore``."""
        self._clerk.send(Request(Action.RELEASE, key))

    @property
    def _clerk(self) -> _Clerk:
        return _clerk(self.path, self.max_bytes)


class _Asked(NamedTuple):
    request: Request
    loop: asyncio.AbstractEventLoop | None = None
    future: asyncio.Future[_Answer] | None = None


class _Clerk:
    """The thread that has the file open, from the first request to the end of the process."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path, self._max_bytes = path, max_bytes
        self._asked: SimpleQueue[_Asked | None] = SimpleQueue()
        self._file: CompletionFile | None = None
        self._rested = 0.0
        self.failed = False
        self._thread = threading.Thread(target=self._work, name="completions", daemon=True)
        self._thread.start()
        atexit.register(self.end)

    def send(self, request: Request) -> None:
        """Have something done by and by, before anything that is asked later."""
        if not self.failed:
            self._asked.put(_Asked(request))

    async def ask(self, request: Request) -> _Answer:
        """What the file has to say; ``None`` from one that has failed."""
        if self.failed:
            return None
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_Answer] = loop.create_future()
        self._asked.put(_Asked(request, loop, future))
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():  # answered in the same moment
                self._hand_back(request, future.result())
            raise

    def end(self) -> None:
        """Close the file, so that it needs no recovery when it is opened next."""
        self._asked.put(None)
        self._thread.join(_FAREWELL_S)

    def _work(self) -> None:
        is_open = True
        while is_open:
            batch = self._next_batch()
            asked = [one for one in batch if one is not None]
            is_open = len(asked) == len(batch)
            before = time.thread_time()
            answers = self._answers([one.request for one in asked])
            worked_s = time.thread_time() - before
            self._rested = time.monotonic() + min(_GATHERED_S, worked_s * (1 / _SHARE - 1))
            by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Asked, _Answer]]] = defaultdict(list)
            for one, answer in zip(asked, answers, strict=True):
                if one.loop is not None:
                    by_loop[one.loop].append((one, answer))
            for loop, answered in by_loop.items():
                try:
                    loop.call_soon_threadsafe(self._hand_over, answered)
                except RuntimeError:  # the loop is closed, and nobody waits any more
                    continue
        if self._file is not None:
            self._file.close()

    def _next_batch(self) -> list[_Asked | None]:
        """All that is asked by now, or the next thing asked; empty when it is time to renew the claims."""
        batch: list[_Asked | None] = []
        with suppress(Empty):
            batch.append(self._asked.get(timeout=_RENEW_S))
            while len(batch) < _MOST_AT_ONCE:
                last = batch[-1]
                can_wait = last is not None and last.future is None
                left_s = self._rested - time.monotonic() if can_wait else 0.0
                batch.append(self._asked.get(timeout=max(0.0, left_s)))
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
        except Exception as error:  # whatever a damaged file makes of a query: those who ask would wait for ever
            self._fail(error)
            return nothing

    def _fail(self, error: Exception) -> None:
        self.failed = True
        log.warning(
            "the completion cache %s is not used any more by this process: %s; calls that were made before may be made "
            "again (if the file is damaged, remove it; cache.kind: none goes without)",
            self._path,
            error,
        )
        if self._file is not None:
            try:
                self._file.close()
            except sqlite3.Error:
                log.debug("closing %s failed", self._path, exc_info=True)
            self._file = None

    def _hand_over(self, answered: list[tuple[_Asked, _Answer]]) -> None:
        for one, answer in answered:
            if one.future is not None and not one.future.done():
                one.future.set_result(answer)
            else:
                self._hand_back(one.request, answer)

    def _hand_back(self, request: Request, answer: _Answer) -> None:
        """What to do with an answer when the one who asked is not there any more."""
        if answer is Missing.CLAIMED:
            self.send(Request(Action.RELEASE, request.key))


@cache
def _clerk(path: Path, max_bytes: int) -> _Clerk:
    return _Clerk(path, max_bytes)
