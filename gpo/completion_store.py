"""Where completions are kept, and who makes the one that is missing."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from gpo.models import Completion


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
