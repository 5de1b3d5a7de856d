"""Completions on a Redis server: the store of a cluster."""

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
_MOST_AT_ONCE = 500
_MOST_UNKEPT = 2_000
"""Completions that wait for a server to come back; a few megabytes. The oldest are dropped."""
_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Before a server that does not answer is asked once more."""

_Command = tuple[Any, ...]
_Asked = tuple[_Command, asyncio.Future[Any]]

# The braces keep both keys of a completion on one node of a sharded server.
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
        url_env: environment variable with the address. It may hold a password, so it is read where it is used, and
            neither kept nor shown.
        ttl_s: seconds that a completion is kept after its last use. The server bounds the size by its own settings.
    """

    url_env: str
    ttl_s: float = DEFAULT_TTL_S

    async def find(self, key: bytes) -> Completion | Missing:
        """The completion, or what to do; see ``gpo.cache.store.CompletionStore``."""
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
        """Keep a completion; see ``gpo.cache.store.CompletionStore``."""
        self._link.held.discard(key)
        await self._link.ask(_PUT, key, self._ttl_ms, encode(key, completion))

    async def release(self, key: bytes) -> None:
        """Give up a claim; see ``gpo.cache.store.CompletionStore``."""
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
    """The connection of a process to a server; all that is asked meanwhile goes in one message.

    Nobody waits for a server that does not answer: while it is away, whoever asks is told nothing, at once, and what
    was to be kept is handed in when it is back. It is given up where it can never be used.
    """

    url_env: str
    holder: str = field(default_factory=lambda: uuid4().hex)
    held: set[bytes] = field(default_factory=set[bytes])
    _waiting: list[_Asked] = field(default_factory=list[_Asked])
    _unkept: deque[_Command] = field(default_factory=lambda: deque[_Command](maxlen=_MOST_UNKEPT))
    _client: Any = None
    _sending: asyncio.Task[None] | None = None
    _renewing: asyncio.Task[None] | None = None
    _returning: asyncio.Task[None] | None = None
    _given_up: bool = False
    _refusals: set[str] = field(default_factory=set[str])

    async def ask(self, script: str, key: bytes, *arguments: Any) -> Any:
        """What the script returns; ``None`` from a server that does not say."""
        name = key.hex().encode()
        command = ("EVAL", script, 2, _COMPLETION % name, _CLAIM % name, self.holder, *arguments)
        if self._is_away:
            self._keep(command)
            return None
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((command, future))
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send())
        return await future

    def hold(self, key: bytes) -> None:
        """Have the claim last until it is not among those ``held`` any more."""
        self.held.add(key)
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew())

    @property
    def _is_away(self) -> bool:
        return self._given_up or (self._returning is not None and not self._returning.done())

    def _keep(self, command: _Command) -> None:
        if command[1] == _PUT and not self._given_up:
            self._unkept.append(command)

    async def _send(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:_MOST_AT_ONCE], self._waiting[_MOST_AT_ONCE:]
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
        except Exception as error:  # of the client's many kinds, and those of an address that is none
            self._lose(error)
        for command in commands:
            self._keep(command)
        return [None] * len(commands)

    def _accepted(self, answer: Any) -> Any:
        """An answer; ``None`` where the server refused this one command, as for want of memory."""
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
            self._unkept.clear()
            self._warn("is not used any more by this process", type(error).__name__)
        else:
            self._warn("does not answer, and is done without until it does", type(error).__name__)
            self._returning = asyncio.create_task(self._return())

    async def _return(self) -> None:
        """Wait until the server answers, or can be seen never to."""
        for pause_s in chain(_PAUSES_S, repeat(_PAUSES_S[-1])):
            await asyncio.sleep(pause_s)
            try:
                await self._connected().ping()
                while self._unkept:
                    pipeline = self._connected().pipeline(transaction=False)
                    some = [self._unkept[number] for number in range(min(len(self._unkept), _MOST_AT_ONCE))]
                    for command in some:
                        pipeline.execute_command(*command)
                    await pipeline.execute(raise_on_error=False)
                    for _ in some:
                        self._unkept.popleft()
            except Exception as error:
                if _is_final(error):
                    self._lose(error)
                    break
            else:
                log.warning("the completion cache at $%s answers again", self.url_env)
                break

    def _warn(self, what: str, why: str) -> None:
        # Not an error's text: some quote the address, and with it the password.
        log.warning(
            "the completion cache at $%s %s: %s; calls that were made before may be made again (cache.kind: none goes "
            "without)",
            self.url_env,
            what,
            why,
        )


def _is_final(error: Exception) -> bool:
    """Whether no waiting helps: not the server's failure, but that of the address, the password or the package."""
    try:
        from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError
    except ImportError:
        return True
    if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError):
        return True
    return not isinstance(error, RedisError | OSError)


_LINKS: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Link]] = WeakKeyDictionary()
