"""A model that waits for its turn before each request."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeVar

from gpo.errors import ModelRefused, ModelUnavailable
from gpo.limits.gate import Gate
from gpo.models.events import Outcome, observer
from gpo.models.protocol import Completion, Embeddings, Forwarded, Message, Model, Sampling, billed
from gpo.runtime.context import current_caller, is_retry

_Reply = TypeVar("_Reply", Completion, Embeddings, Forwarded)


@dataclass(frozen=True, slots=True)
class LimitedModel:
    """Sends a request when the gate lets it through, and reports its cost and outcome to the gate.

    Args:
        max_pause_s: longest pause that the endpoint can ask for, in seconds.

    Raises:
        BudgetExhausted: from every method, once the budget is used up.
        OutOfReach: from every method, where the limiter does not answer for a minute.
    """

    model: Model
    gate: Gate
    max_pause_s: float = 60.0

    async def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        """Reply to a conversation; see ``gpo.models.protocol.ChatModel``."""
        prompt_characters = sum(len(message["content"]) for message in messages)
        return await self._admitted(
            prompt_characters, sampling.max_tokens, lambda: self.model.complete(messages, sampling)
        )

    async def embed_batch(self, texts: Sequence[str]) -> Embeddings:
        """Embed texts; see ``gpo.models.protocol.EmbeddingModel``."""
        return await self._admitted(sum(map(len, texts)), 1, lambda: self.model.embed_batch(texts))

    async def forward(self, route: str, body: Mapping[str, Any]) -> Forwarded:
        """Send a request as it is; see ``gpo.models.protocol.ForwardingModel``."""
        bound = body.get("max_completion_tokens") or body.get("max_tokens")
        return await self._admitted(
            len(json.dumps(body)), bound if isinstance(bound, int) else None, lambda: self.model.forward(route, body)
        )

    async def _admitted(
        self, prompt_characters: int, max_tokens: int | None, request: Callable[[], Awaitable[_Reply]]
    ) -> _Reply:
        events, pool, caller = observer(), self.gate.pool, current_caller.get()
        queued = perf_counter()
        events.request_queued(pool, caller)
        try:
            admission = await self.gate.enter(prompt_characters, max_tokens)
        except BaseException:
            events.request_abandoned(pool, caller)
            raise
        started = perf_counter()
        events.request_started(pool, caller, started - queued, is_retry=is_retry.get())
        outcome = Outcome.CANCELLED
        try:
            reply = await request()
            outcome, admission.usage = Outcome.ANSWERED, reply.usage
            return reply
        except ModelUnavailable as failure:
            outcome = Outcome.TOO_MANY if failure.too_many else Outcome.UNAVAILABLE
            admission.usage = billed(failure)
            if failure.too_many:
                admission.refused(min(failure.retry_after_s or 0.0, self.max_pause_s))
            raise
        except ModelRefused as refusal:
            outcome = Outcome.REFUSED
            admission.usage = billed(refusal)
            raise
        finally:
            self.gate.leave(admission)
            events.request_ended(pool, caller, outcome, perf_counter() - started, admission.usage)
