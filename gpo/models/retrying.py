"""A model that repeats failed requests."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from gpo.errors import ModelError, ModelRefused, ModelUnavailable
from gpo.limits.gate import Gate
from gpo.limits.messages import Pool
from gpo.models.events import observer
from gpo.models.protocol import Completion, Embeddings, Forwarded, Message, Model, Sampling, Usage, billed
from gpo.runtime.context import current_caller, is_retry

log = logging.getLogger(__name__)

_Reply = TypeVar("_Reply", Completion, Embeddings, Forwarded)

DEFAULT_MAX_ATTEMPTS = 6
DEFAULT_PATIENCE_S = 300.0
SAY_AFTER_S = 5.0
"""Seconds of waiting for an endpoint after which the log and the gate's reports say so, again and again."""
_FIRST_BACKOFF_S = 0.5
_MAX_AWAY_BACKOFF_S = 5.0
"""Longest wait for an endpoint that does not run, so that it is not idle for a minute once it is back."""
_SHORT_RETRY_AFTER_S = 0.5
"""Where the endpoint asks for less, the wait still grows with each failure."""
_JITTER = 0.1
"""Random share added to a ``Retry-After``, so that requests that were refused together do not return together."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to repeat a failed request, and when to give up.

    A failure says nothing about the request itself if the endpoint was too busy (HTTP 429) or did not run. Such
    failures are bounded by time, all others by number.

    Attributes:
        max_attempts: requests for one call, ≥ 1, not counting those that met a busy or absent endpoint.
        patience_s: how long to repeat requests that met a busy or absent endpoint: the sum of all waits, in seconds.
        max_backoff_s: longest wait between two requests, in seconds; a longer ``Retry-After`` is cut to it.
    """

    max_attempts: int = DEFAULT_MAX_ATTEMPTS
    patience_s: float = DEFAULT_PATIENCE_S
    max_backoff_s: float = 60.0

    def wait_s(self, failures: Sequence[ModelUnavailable], waited_s: float) -> float | None:
        """Seconds to wait before the next request; ``None`` to give up.

        The wait is the endpoint's ``Retry-After``, or else random with an exponentially growing bound.

        Args:
            failures: of this call so far; at least one.
            waited_s: sum of the waits so far; time in a queue does not count.
        """
        last = failures[-1]
        if sum(not _is_endpoint_busy(failure) for failure in failures) >= self.max_attempts:
            return None
        if _is_endpoint_busy(last) and waited_s > self.patience_s:
            return None
        max_s = min(_MAX_AWAY_BACKOFF_S, self.max_backoff_s) if last.is_away else self.max_backoff_s
        backoff_s = random.uniform(0, min(_FIRST_BACKOFF_S * 2.0 ** min(len(failures) - 1, 50), max_s))
        if last.retry_after_s is None:
            return backoff_s
        retry_after_s = min(last.retry_after_s, self.max_backoff_s) * (1 + _JITTER * random.random())
        return retry_after_s if last.retry_after_s >= _SHORT_RETRY_AFTER_S else max(retry_after_s, backoff_s)


def _is_endpoint_busy(failure: ModelUnavailable) -> bool:
    return failure.too_many or failure.is_away


@dataclass(frozen=True, slots=True)
class RetryingModel:
    """Repeats requests that failed transiently, and counts the retries in the usage.

    Args:
        gate: that of the model; reports long waits.
    """

    model: Model
    policy: RetryPolicy
    gate: Gate

    async def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        """Reply to a conversation; see ``gpo.models.protocol.ChatModel``."""
        return await self._answered(lambda: self.model.complete(messages, sampling))

    async def embed_batch(self, texts: Sequence[str]) -> Embeddings:
        """Embed texts; see ``gpo.models.protocol.EmbeddingModel``."""
        return await self._answered(lambda: self.model.embed_batch(texts))

    async def forward(self, route: str, body: Mapping[str, Any]) -> Forwarded:
        """Send a request as it is; see ``gpo.models.protocol.ForwardingModel``."""
        return await self._answered(lambda: self.model.forward(route, body))

    async def _answered(self, request: Callable[[], Awaitable[_Reply]]) -> _Reply:
        call = object()
        try:
            return await self._repeated(request, call)
        finally:
            self.gate.wait_ends(call)

    async def _repeated(self, request: Callable[[], Awaitable[_Reply]], call: object) -> _Reply:
        pool = self.gate.pool
        failures: list[ModelUnavailable] = []
        waited_s = failing_since = 0.0
        while True:
            is_retry.set(bool(failures))
            try:
                reply = await request()
            except ModelRefused as refusal:
                observer().call_failed(pool, current_caller.get(), is_final=True)
                raise refusal.costing(_billed([*failures, refusal])) from None
            except ModelUnavailable as failure:
                failing_since = failing_since if failures else time.monotonic()
                failures.append(failure)
                wait_s = self.policy.wait_s(failures, waited_s)
                if wait_s is None:
                    observer().call_failed(pool, current_caller.get(), is_final=False)
                    retries, too_many, is_away = len(failures) - 1, failure.too_many, failure.is_away
                    raise ModelUnavailable(
                        str(failure), retries, failure.retry_after_s, too_many, is_away, _billed(failures)
                    ) from None
            else:
                if not failures:
                    return reply
                usage = reply.usage + Usage(retries=len(failures)) + (_billed(failures) or Usage())
                return replace(reply, usage=usage)
            failing_s = time.monotonic() - failing_since
            if failing_s + wait_s > SAY_AFTER_S:
                _announce(pool, failures[-1], failing_s, wait_s)
                self.gate.wait_begins(call, str(failures[-1]), failing_since)
            await asyncio.sleep(wait_s)
            waited_s += wait_s


def _billed(failures: Sequence[ModelError]) -> Usage | None:
    """What the replies of all failed requests of a call cost; ``None`` if the endpoint reports nothing."""
    costs = [cost for failure in failures if (cost := billed(failure)) is not None]
    return sum(costs, start=Usage()) if costs else None


_announced: dict[tuple[str, str], float] = {}
"""Endpoint and model → when this process last said that it waits for them; many calls wait at once."""


def _announce(pool: Pool, failure: ModelUnavailable, waited_s: float, wait_s: float) -> None:
    """Log what a call waits for, and since when; at most once in a while for all calls of this process."""
    key, now = (pool.endpoint, pool.model), time.monotonic()
    if now - _announced.get(key, float("-inf")) >= SAY_AFTER_S:
        _announced[key] = now
        log.warning("waiting for %s (since %.0f s, next try in %.0f s)", failure, waited_s, wait_s)
