"""Chat and embedding models behind any endpoint that speaks the OpenAI API, through the ``openai`` client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gpo.models.endpoint import Endpoint
from gpo.models.protocol import Completion, Message, Sampling
from gpo.models.replies import ChatReply, EmbeddingReply

_TEXTS_AT_ONCE = 64
"""Texts in one request for embeddings: some endpoints refuse many, and the reply must stay within bounds."""


@dataclass(frozen=True, slots=True)
class OpenAICompatibleModel:
    """A chat model behind an endpoint.

    Args:
        completion_limit: the field that bounds generated tokens: ``max_tokens``, which all servers know, or
            ``max_completion_tokens``, which OpenAI's newer models insist on.
    """

    endpoint: Endpoint
    completion_limit: str = "max_tokens"

    async def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        """Reply to a conversation; see ``gpo.models.protocol.ChatModel``."""
        reply, retries = await self.endpoint.attempt(
            lambda: self._request(messages, sampling),
            lambda reply: reply.cost(self.endpoint.price),
            prompt_characters=sum(len(message["content"]) for message in messages),
            max_tokens=sampling.max_tokens,
        )
        usage = replace(reply.cost(self.endpoint.price), retries=retries)
        return Completion(text=reply.text, truncated=reply.is_truncated, usage=usage)

    async def _request(self, messages: Sequence[Message], sampling: Sampling) -> ChatReply:
        settings: dict[str, Any] = {
            "temperature": sampling.temperature,
            self.completion_limit: sampling.max_tokens,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
            "stop": list(sampling.stop) or None,
        }
        asked = {name: value for name, value in settings.items() if value is not None}
        body = {"model": self.endpoint.model, "messages": list(messages), **asked, **sampling.extra}
        return ChatReply.read(await self.endpoint.post("/chat/completions", body), self.endpoint.masked)


@dataclass(frozen=True)
class OpenAICompatibleEmbedder:
    """Sentence embeddings from an endpoint; each text is asked for once per process."""

    endpoint: Endpoint
    _known: dict[str, list[float]] = field(default_factory=dict[str, list[float]], repr=False, compare=False)

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """One vector per text; see ``gpo.models.protocol.Embedder``."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._known]
        for start in range(0, len(missing), _TEXTS_AT_ONCE):
            await self._learn(missing[start : start + _TEXTS_AT_ONCE])
        return [self._known[text] for text in texts]

    async def _learn(self, texts: list[str]) -> None:
        reply, _ = await self.endpoint.attempt(
            lambda: self._request(texts),
            lambda reply: reply.cost(self.endpoint.price),
            prompt_characters=sum(map(len, texts)),
            max_tokens=1,
        )
        self._known.update(zip(texts, (row.embedding for row in reply.data), strict=True))

    async def _request(self, texts: list[str]) -> EmbeddingReply:
        body = {"model": self.endpoint.model, "input": texts, "encoding_format": "float"}
        return EmbeddingReply.read(await self.endpoint.post("/embeddings", body), len(texts))
