"""A chat model that asks nothing twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any

from gpo.cache.store import CompletionStore, Missing
from gpo.context import current_caller
from gpo.errors import ModelUnavailable
from gpo.events import observer
from gpo.models.protocol import ChatModel, Completion, Message, Sampling, Usage
from gpo.process import PicklesFieldsOnly

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.25


def is_repeatable(sampling: Sampling) -> bool:
    """Whether the same request is meant to get the same reply: at temperature 0, or with a seed."""
    return sampling.temperature == 0 or sampling.seed is not None


def completion_key(identity: Mapping[str, Any], messages: Sequence[Message], sampling: Sampling) -> bytes:
    """Twenty bytes that depend on everything that the reply depends on, and not on the order of any mapping's keys."""
    request = {
        "model": identity,
        "messages": messages,
        "temperature": sampling.temperature,
        "max_tokens": sampling.max_tokens,
        "top_p": sampling.top_p,
        "stop": sampling.stop,
        "extra": sampling.extra,
        "seed": sampling.seed,
    }
    # In ASCII, so that half a surrogate pair from a model has a key as well.
    content = json.dumps(request, sort_keys=True, separators=(",", ":"), default=dict)
    return blake2b(content.encode("ascii"), digest_size=20).digest()


@dataclass(frozen=True)
class CachedModel(PicklesFieldsOnly):
    """A chat model before which a store stands; see ``gpo.models.protocol.ChatModel``.

    What is repeatable is asked once: later calls get the stored reply, and calls at the same time one and the same.
    The first of them that goes on has the usage of the call, every other one ``cached=1``. A failure is raised to all
    who wait, and is not stored. The call is cancelled when nobody waits any more.

    Args:
        model: what is asked where the store has no reply.
        store: where replies are kept.
        identity: what tells the model from all others that share the store, such as address and name; JSON values.
        role: what the model is called for, for those who count.
    """

    model: ChatModel
    store: CompletionStore
    identity: Mapping[str, Any]
    role: str = ""

    async def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        """Reply to a conversation; see ``gpo.models.protocol.ChatModel``."""
        if not is_repeatable(sampling):
            return await self.model.complete(messages, sampling)
        key = completion_key(self.identity, messages, sampling)
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight(asyncio.create_task(self._fetched(key, messages, sampling)))
        flight.waiting += 1
        try:
            reply = await asyncio.shield(flight.task)
        except ModelUnavailable as failure:
            # Each of them has lost its call; the attempts at it were made once.
            raise ModelUnavailable(str(failure), failure.retries if flight.is_first() else 0) from None
        finally:
            flight.waiting -= 1
            if flight.waiting == 0:
                flight.task.cancel()
                if self._flights.get(key) is flight:
                    del self._flights[key]
        if not flight.is_first():
            reply = _hit(reply)
        observer().cache_lookup(self.role, current_caller.get(), is_hit=reply.usage.cached > 0)
        return reply

    async def _fetched(self, key: bytes, messages: Sequence[Message], sampling: Sampling) -> Completion:
        pause_s = _FIRST_PAUSE_S
        while (found := await self.store.find(key)) is Missing.ELSEWHERE:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        if isinstance(found, Completion):
            return _hit(found)
        try:
            reply = await self.model.complete(messages, sampling)
        except BaseException:
            await self.store.release(key)
            raise
        await self.store.put(key, reply)
        return reply

    @cached_property
    def _flights(self) -> dict[bytes, _Flight]:
        return {}


@dataclass(slots=True)
class _Flight:
    """A call under way, and how many wait for it."""

    task: asyncio.Task[Completion]
    waiting: int = 0
    _was_asked: bool = False

    def is_first(self) -> bool:
        """Whether this is asked for the first time: one of those who wait accounts for the call."""
        was_asked, self._was_asked = self._was_asked, True
        return not was_asked


def _hit(reply: Completion) -> Completion:
    took = reply.usage
    tokens = took.prompt_tokens + took.completion_tokens + took.cached_tokens
    return Completion(
        reply.text, Usage(cached=1, cached_tokens=tokens, cached_usd=took.cost_usd + took.cached_usd), reply.truncated
    )
