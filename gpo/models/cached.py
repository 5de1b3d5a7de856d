"""A chat model that sends no repeatable request twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any, cast

from gpo.cache.store import CompletionStore, Missing
from gpo.errors import ModelRefused, ModelUnavailable
from gpo.models.events import observer
from gpo.models.protocol import ChatModel, Completion, Forwarded, ForwardingModel, Message, Sampling, Usage
from gpo.runtime.context import current_caller
from gpo.runtime.process import PicklesFieldsOnly

_MIN_POLL_S, _MAX_POLL_S = 0.01, 0.25


def is_repeatable(sampling: Sampling) -> bool:
    """Whether equal requests should get equal replies: at temperature 0, or with a seed."""
    if sampling.is_repeatable is not None:
        return sampling.is_repeatable
    return sampling.temperature == 0 or sampling.seed is not None


def completion_key(identity: Mapping[str, Any], messages: Sequence[Message], sampling: Sampling) -> bytes:
    """A key of 20 bytes that depends on everything the reply depends on, but not on the order of mappings."""
    request: dict[str, Any] = {
        "model": identity,
        "messages": messages,
        "temperature": sampling.temperature,
        "max_tokens": sampling.max_tokens,
        "top_p": sampling.top_p,
        "stop": sampling.stop,
        "extra": sampling.extra,
        "seed": sampling.seed,
    }
    if sampling.limit_field is not None:
        request["limit_field"] = sampling.limit_field
    return _digest(request)


def _digest(request: Mapping[str, Any]) -> bytes:
    # In ASCII, so that unpaired surrogates, which models do generate, have a key as well.
    content = json.dumps(request, sort_keys=True, separators=(",", ":"), default=dict)
    return blake2b(content.encode("ascii"), digest_size=20).digest()


@dataclass(frozen=True)
class CachedModel(PicklesFieldsOnly):
    """A chat model that stores replies to repeatable requests.

    Later calls get the stored reply, and simultaneous equal calls share one request. The first of them to continue
    reports the usage of the request; all others report ``cached=1``. A failure is raised in all of them and is not
    stored. The request is cancelled once no call waits for it.

    Args:
        model: answers what is not in the store.
        identity: distinguishes the model from all others in the store, such as by address and name; JSON values.
        role: what the model is called for, for events.
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
        return await self._shared(key, lambda: self.model.complete(messages, sampling), _has_answer)

    async def forward(self, route: str, body: Mapping[str, Any]) -> Forwarded:
        """Send a request as it is, or find its reply; see ``gpo.models.protocol.ForwardingModel``.

        Chat completions at temperature 0 or with a seed are repeatable, and so are embeddings.
        """
        model = cast("ForwardingModel", self.model)
        if route == "/chat/completions" and body.get("temperature") != 0 and body.get("seed") is None:
            return await model.forward(route, body)

        async def sent() -> Completion:
            reply = await model.forward(route, body)
            return Completion(json.dumps(reply.body), reply.usage)

        # Without the name, which the endpoint's own replaces.
        request = {"model": self.identity, "route": route, "body": {**body, "model": ""}}
        reply = await self._shared(_digest(request), sent, lambda found: _has_content(json.loads(found.text)))
        return Forwarded(json.loads(reply.text), reply.usage)

    async def _shared(
        self, key: bytes, request: Callable[[], Awaitable[Completion]], is_kept: Callable[[Completion], bool]
    ) -> Completion:
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight(asyncio.create_task(self._fetched(key, request, is_kept)))
        flight.waiting += 1
        try:
            reply = await asyncio.shield(flight.task)
        except ModelUnavailable as failure:
            # Every call has failed, but the requests were sent once.
            own = (failure.retries, failure.billed) if flight.is_first() else (0, None)
            raise ModelUnavailable(str(failure), own[0], billed=own[1]) from None
        except ModelRefused as refusal:
            raise refusal if flight.is_first() else refusal.costing(None) from None
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

    async def _fetched(
        self, key: bytes, request: Callable[[], Awaitable[Completion]], is_kept: Callable[[Completion], bool]
    ) -> Completion:
        poll_s = _MIN_POLL_S
        while (found := await self.store.find(key)) is Missing.ELSEWHERE:
            await asyncio.sleep(poll_s)
            poll_s = min(2 * poll_s, _MAX_POLL_S)
        if isinstance(found, Completion):
            return _hit(found)
        try:
            reply = await request()
        except BaseException:
            await self.store.release(key)
            raise
        if is_kept(reply):
            await self.store.put(key, reply)
        else:  # an empty reply that was not cut off may be a failure of the moment
            await self.store.release(key)
        return reply

    @cached_property
    def _flights(self) -> dict[bytes, _Flight]:
        return {}


def _has_answer(reply: Completion) -> bool:
    return bool(reply.answer.strip() or reply.truncated)


def _has_content(body: Mapping[str, Any]) -> bool:
    """Whether a forwarded reply says or calls something, or was cut off; those without choices always count."""
    choices = body.get("choices")
    return choices is None or any(
        (choice.get("message") or {}).get("content")
        or (choice.get("message") or {}).get("tool_calls")
        or choice.get("finish_reason") == "length"
        for choice in choices
    )


@dataclass(slots=True)
class _Flight:
    """A request in flight, and the number of calls that wait for it."""

    task: asyncio.Task[Completion]
    waiting: int = 0
    _is_accounted: bool = False

    def is_first(self) -> bool:
        """True for the first of the calls, which accounts for the request; False for all others."""
        is_accounted, self._is_accounted = self._is_accounted, True
        return not is_accounted


def _hit(reply: Completion) -> Completion:
    cost = reply.usage
    tokens = cost.prompt_tokens + cost.completion_tokens + cost.cached_tokens
    usage = Usage(cached=1, cached_tokens=tokens, cached_usd=cost.cost_usd + cost.cached_usd)
    return Completion(reply.text, usage, reply.truncated)
