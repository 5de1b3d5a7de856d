"""Where completions are kept, and who makes the one that is missing."""

from __future__ import annotations

import os
from enum import Enum
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

import msgpack

from gpo.models.protocol import Completion, Usage


class Missing(Enum):
    """Why there is no completion, and what to do about it."""

    CLAIMED = "claimed"
    """Nobody has made it: the one who asked is to make it, and to ``put`` or ``release`` it."""
    ELSEWHERE = "elsewhere"
    """Another process, or another part of this one, is making it: ask again after a while."""


class CompletionStore(Protocol):
    """Completions by key, shared by processes.

    It holds copies of what could be bought again, so nothing here raises: a store that fails says so once in the log,
    and as long as it fails, for this process everything is missing. A value that was damaged is missing.

    A store is a value that travels by pickling; what it opens is opened in the process that asks.
    """

    async def find(self, key: bytes) -> Completion | Missing:
        """The completion, without what it cost; or what to do, for a key that nobody else is told to make meanwhile.

        A claim lasts for as long as the process lives that made it, and, where its death cannot be seen, some seconds
        more.
        """
        ...

    async def put(self, key: bytes, completion: Completion) -> None:
        """Keep a completion and give up the claim on it, now or within moments."""
        ...

    async def release(self, key: bytes) -> None:
        """Give up the claim without a completion; the next one who asks is told to make it."""
        ...


_CHECKSUM_BYTES = 12


def encode(key: bytes, completion: Completion) -> bytes:
    """Text, ending, tokens and cost."""
    usage = completion.usage
    fields = [completion.text, completion.truncated, usage.prompt_tokens, usage.completion_tokens, usage.cost_usd]
    # A model may reply with half a surrogate pair.
    content: bytes = msgpack.packb(fields, unicode_errors="surrogatepass")
    return _checksum(key, content) + content


def decode(key: bytes, record: bytes) -> Completion | None:
    """The completion, with what it took when it was made.

    ``None`` where the bytes are damaged, of another form, or belong to another key. Earlier ones say nothing of what
    they took.
    """
    content = record[_CHECKSUM_BYTES:]
    if record[:_CHECKSUM_BYTES] != _checksum(key, content):
        return None
    try:
        text, truncated, *took = msgpack.unpackb(content, unicode_errors="surrogatepass")
        sent, generated, usd = took or (0, 0, 0.0)
    except (ValueError, TypeError):
        return None
    return Completion(text, Usage(prompt_tokens=sent, completion_tokens=generated, cost_usd=usd), truncated)


def _checksum(key: bytes, content: bytes) -> bytes:
    return blake2b(content, key=key, digest_size=_CHECKSUM_BYTES).digest()


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/gpo``, or ``~/.cache/gpo``; it may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "gpo"
