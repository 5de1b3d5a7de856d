"""The completion store of a cluster: a Redis server."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary

from gpo.cache.store import Missing, decode, encode
from gpo.models.protocol import Completion

log = logging.getLogger(__name__)

DEFAULT_TTL_S = 30 * 86_400.0
_LEASE_MS = 10_000
_TIMEOUT_S = 5.0
_MAX_PIPELINE = 500
_MAX_DEFERRED = 2_000
"""Completions to store once the server is back: a few megabytes. The oldest are dropped."""
_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Waits before a server that does not answer is tried again."""

_Command = tuple[Any, ...]
_Asked = tuple[_Command, asyncio.Future[Any]]

# The braces place both keys of a completion on the same node of a sharded server.
_COMPLETION, _CLAIM = b"gpo:1:{%b}", b"gpo:1:{%b}:claim"
_FIND = """
local record = redis.call('GET', KEYS[1])
if record then redis.call('PEXPIRE', KEYS[1], ARGV[3]) return record end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
return 0
"""
_CLAIM_ANEW = """
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
return 0
"""
_PUT = """
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[2])
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
"""
_RELEASE = "if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end"
_RENEW = "if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('PEXPIRE', KEYS[2], ARGV[2]) end"


@dataclass(frozen=True, slots=True)
class RedisStore:
    """Completions on a server; see ``gpo.cache.store.CompletionStore``. Needs the package ``redis``.

    Args:
        url_env: environment variable with the address. The address may contain a password, so it is read where it is
            used, and neither stored nor shown.
        ttl_s: seconds that a completion is stored after its last use. The server's own settings bound the size.
    """

    url_env: str
    ttl_s: float = DEFAULT_TTL_S

    async def find(self, key: bytes) -> Completion | Missing:
        """The completion, or why it is missing; see ``gpo.cache.store.CompletionStore``."""
        link = self._link
        found = await link.ask(_FIND, key, _LEASE_MS, self._ttl_ms)
        if isinstance(found, bytes):
            completion = decode(key, found)
            if completion is not None:
                return completion
            found = await link.ask(_CLAIM_ANEW, key, _LEASE_MS)
        if found == 0:
            return Missing.ELSEWHERE
        link.hold(key)
        return Missing.CLAIMED

    async def put(self, key: bytes, completion: Completion) -> None:
        """Store a completion; see ``gpo.cache.store.CompletionStore``."""
        self._link.held.discard(key)
        await self._link.ask(_PUT, key, self._ttl_ms, encode(key, completion))

    async def release(self, key: bytes) -> None:
        """End a claim; see ``gpo.cache.store.CompletionStore``."""
        self._link.held.discard(key)
        await self._link.ask(_RELEASE, key)

    @property
    def _ttl_ms(self) -> int:
        return max(1, round(1000 * self.ttl_s))

    @property
    def _link(self) -> _Link:
        links = _LINKS.setdefault(asyncio.get_running_loop(), {})
        if self.url_env not in links:
            links[self.url_env] = _Link(self.url_env)
        return links[self.url_env]


@dataclass
class _Link:
    """The connection of a process to a server. Commands that arrive while it is busy go out in one pipeline.

    No call waits for a server that does not answer. While it is away, every lookup misses at once, and completions are
    stored when it is back. A server that can never be used is given up.
    """

    url_env: str
    holder: str = field(default_factory=lambda: uuid4().hex)
    held: set[bytes] = field(default_factory=set[bytes])
    _waiting: list[_Asked] = field(default_factory=list[_Asked])
    _deferred: deque[_Command] = field(default_factory=lambda: deque[_Command](maxlen=_MAX_DEFERRED))
    _client: Any = None
    _sending: asyncio.Task[None] | None = None
    _renewing: asyncio.Task[None] | None = None
    _returning: asyncio.Task[None] | None = None
    _given_up: bool = False
    _refusals: set[str] = field(default_factory=set[str])

    async def ask(self, script: str, key: bytes, *arguments: Any) -> Any:
        """The script's result; ``None`` if the server does not answer."""
        name = key.hex().encode()
        command = ("EVAL", script, 2, _COMPLETION % name, _CLAIM % name, self.holder, *arguments)
        if self._is_away:
            self._defer(command)
            return None
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((command, future))
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send())
        return await future

    def hold(self, key: bytes) -> None:
        """Renew the claim for as long as it is in ``held``."""
        self.held.add(key)
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew())

    @property
    def _is_away(self) -> bool:
        return self._given_up or (self._returning is not None and not self._returning.done())

    def _defer(self, command: _Command) -> None:
        if command[1] == _PUT and not self._given_up:
            self._deferred.append(command)

    async def _send(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:_MAX_PIPELINE], self._waiting[_MAX_PIPELINE:]
            answers = await self._answers([command for command, _ in batch])
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)

    async def _answers(self, commands: Sequence[_Command]) -> Sequence[Any]:
        try:
            if not self._is_away:
                pipeline = self._connected().pipeline(transaction=False)
                for command in commands:
                    pipeline.execute_command(*command)
                return [self._accepted(answer) for answer in await pipeline.execute(raise_on_error=False)]
        except Exception as error:  # the client has many kinds of errors, and so does an invalid address
            self._lose(error)
        for command in commands:
            self._defer(command)
        return [None] * len(commands)

    def _accepted(self, answer: Any) -> Any:
        """An answer; ``None`` if the server refused this command, as when it is out of memory."""
        if not isinstance(answer, Exception):
            return answer
        if (kind := type(answer).__name__) not in self._refusals:
            self._refusals.add(kind)
            self._warn("refuses commands", kind)
        return None

    async def _renew(self) -> None:
        while self.held and not self._given_up:
            await asyncio.sleep(_LEASE_MS / 4000)
            await asyncio.gather(*(self.ask(_RENEW, key, _LEASE_MS) for key in tuple(self.held)))

    def _connected(self) -> Any:
        if self._client is None:
            import redis.asyncio

            self._client = redis.asyncio.from_url(
                os.environ[self.url_env], socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S
            )
        return self._client

    def _lose(self, error: Exception) -> None:
        if _is_final(error):
            self._given_up = True
            self._deferred.clear()
            self._warn("is no longer used by this process", type(error).__name__)
        else:
            self._warn("does not answer, and is not used until it does", type(error).__name__)
            self._returning = asyncio.create_task(self._return())

    async def _return(self) -> None:
        """Wait until the server answers, or it is certain that it never will."""
        for pause_s in chain(_PAUSES_S, repeat(_PAUSES_S[-1])):
            await asyncio.sleep(pause_s)
            try:
                await self._connected().ping()
                while self._deferred:
                    pipeline = self._connected().pipeline(transaction=False)
                    some = [self._deferred[number] for number in range(min(len(self._deferred), _MAX_PIPELINE))]
                    for command in some:
                        pipeline.execute_command(*command)
                    await pipeline.execute(raise_on_error=False)
                    for _ in some:
                        self._deferred.popleft()
            except Exception as error:
                if _is_final(error):
                    self._lose(error)
                    break
            else:
                log.warning("the completion cache at $%s answers again", self.url_env)
                break

    def _warn(self, what: str, why: str) -> None:
        # Not the error's text, which may quote the address and with it the password.
        log.warning(
            "the completion cache at $%s %s: %s; earlier calls may be repeated (cache.kind: none disables the cache)",
            self.url_env,
            what,
            why,
        )


def _is_final(error: Exception) -> bool:
    """Whether waiting cannot help: the address, the password or the package is the problem, not the server."""
    try:
        from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError
    except ImportError:
        return True
    if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError):
        return True
    return not isinstance(error, RedisError | OSError)


_LINKS: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Link]] = WeakKeyDictionary()
