"""The protocol of completion stores, and the form of their records."""

from __future__ import annotations

import os
from enum import Enum
from hashlib import blake2b
from pathlib import Path
from tempfile import gettempdir
from typing import Protocol

import msgpack

from gpo.models.protocol import Completion, Usage


class Missing(Enum):
    """Why there is no completion, and what to do."""

    CLAIMED = "claimed"
    """The caller now holds the claim: it must make the completion, and then ``put`` it or ``release`` the claim."""
    ELSEWHERE = "elsewhere"
    """Another caller, in this or another process, makes the completion: try again later."""


class CompletionStore(Protocol):
    """Completions by key, shared by processes. A store pickles; each process opens its own connection or file.

    No method raises, since every completion can be made again. A store that fails logs one warning, and while it fails,
    everything is missing for this process. Damaged values are missing, too.
    """

    async def find(self, key: bytes) -> Completion | Missing:
        """The completion, or why it is missing. Only one caller at a time holds the claim on a key.

        A claim ends with its holder's process; if the end of that process cannot be observed, some seconds later.
        """
        ...

    async def put(self, key: bytes, completion: Completion) -> None:
        """Store a completion and end the claim on it, now or soon."""
        ...

    async def release(self, key: bytes) -> None:
        """End the claim without a completion; the next caller gets the claim."""
        ...


_CHECKSUM_BYTES = 12


def encode(key: bytes, completion: Completion) -> bytes:
    """A record with text, truncation, tokens and cost, and a checksum."""
    usage = completion.usage
    fields = [completion.text, completion.truncated, usage.prompt_tokens, usage.completion_tokens, usage.cost_usd]
    # Replies may contain unpaired surrogates.
    content: bytes = msgpack.packb(fields, unicode_errors="surrogatepass")
    return _checksum(key, content) + content


def decode(key: bytes, record: bytes) -> Completion | None:
    """The completion, with its original cost; ``None`` if the record is damaged or belongs to another key."""
    content = record[_CHECKSUM_BYTES:]
    if record[:_CHECKSUM_BYTES] != _checksum(key, content):
        return None
    try:
        text, truncated, *cost = msgpack.unpackb(content, unicode_errors="surrogatepass")
        sent, generated, usd = cost or (0, 0, 0.0)  # old records have no cost
    except (ValueError, TypeError):
        return None
    return Completion(text, Usage(prompt_tokens=sent, completion_tokens=generated, cost_usd=usd), truncated)


def _checksum(key: bytes, content: bytes) -> bytes:
    return blake2b(content, key=key, digest_size=_CHECKSUM_BYTES).digest()


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/gpo`` or ``~/.cache/gpo``, or a temporary folder for users without home; may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(base).expanduser() / "gpo"
    except RuntimeError:
        return temporary_folder()


def temporary_folder() -> Path:
    """A folder of this user below the system's temporary one; may not exist yet."""
    return Path(gettempdir()) / f"gpo-{os.getuid()}"
