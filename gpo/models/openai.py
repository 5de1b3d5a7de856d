"""Models behind any endpoint that speaks the OpenAI API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpo.limits.gate import Gate
from gpo.limits.limiter import LocalLimiter
from gpo.limits.messages import Pool
from gpo.models.endpoint import Endpoint
from gpo.models.limited import LimitedModel
from gpo.models.protocol import Completion, Embeddings, Forwarded, Message, Sampling
from gpo.models.replies import ChatReply, EmbeddingReply, WholeReply
from gpo.models.retrying import RetryingModel, RetryPolicy


@dataclass(frozen=True, slots=True)
class OpenAIModel:
    """A model behind an endpoint. Each call sends one request, whatever the limits, and repeats none.

    Args:
        completion_limit: the field that bounds generated tokens: ``max_tokens``, which all servers know, or
            ``max_completion_tokens``, which OpenAI's newer models require.
    """

    endpoint: Endpoint
    completion_limit: str = "max_tokens"

    async def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        """Reply to a conversation; see ``gpo.models.protocol.ChatModel``."""
        settings: dict[str, Any] = {
            "temperature": sampling.temperature,
            sampling.limit_field or self.completion_limit: sampling.max_tokens,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
            "stop": list(sampling.stop) or None,
        }
        given = {name: value for name, value in settings.items() if value is not None}
        body = {"model": self.endpoint.model, "messages": list(messages), **given, **sampling.extra}
        reply = await self.endpoint.request("/chat/completions", body, ChatReply)
        return Completion(reply.text, reply.cost(self.endpoint.price), reply.is_truncated)

    async def embed_batch(self, texts: Sequence[str]) -> Embeddings:
        """Embed texts; see ``gpo.models.protocol.EmbeddingModel``."""
        body = {"model": self.endpoint.model, "input": list(texts), "encoding_format": "float"}
        reply = await self.endpoint.request("/embeddings", body, EmbeddingReply, num_texts=len(texts))
        return Embeddings([row.embedding for row in reply.data], reply.cost(self.endpoint.price))

    async def forward(self, route: str, body: Mapping[str, Any]) -> Forwarded:
        """Send a request as it is; see ``gpo.models.protocol.ForwardingModel``."""
        reply = await self.endpoint.request(route, {**body, "model": self.endpoint.model}, WholeReply)
        return Forwarded(reply.body, reply.cost(self.endpoint.price))


def openai_model(
    endpoint: Endpoint,
    gate: Gate | None = None,
    retries: RetryPolicy | None = None,
    completion_limit: str = "max_tokens",
) -> RetryingModel:
    """The model behind an endpoint, with limits and retries.

    Args:
        gate: lets requests through; ``None`` limits this process alone, to the endpoint's ``max_concurrency``.
        retries: ``None`` is the default policy.
        completion_limit: see ``OpenAIModel``.
    """
    retries = retries or RetryPolicy()
    if gate is None:
        limit = endpoint.max_concurrency
        gate = Gate(LocalLimiter(), Pool(endpoint.base_url, endpoint.model, limit, limit))
    limited = LimitedModel(OpenAIModel(endpoint, completion_limit), gate, retries.max_backoff_s)
    return RetryingModel(limited, retries, gate)
