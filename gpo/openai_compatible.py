"""Chat and embedding models behind any endpoint that speaks the OpenAI API, through the ``openai`` client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, ValidationInfo, model_validator

from gpo.endpoint import Endpoint, Price
from gpo.models import Completion, Message, Sampling, Usage


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
        """Reply to a conversation; see ``gpo.models.ChatModel``."""
        reply, retries = await self.endpoint.attempt(
            lambda: self._request(messages, sampling),
            lambda reply: _cost(reply.usage, self.endpoint.price),
            prompt_characters=sum(len(message["content"]) for message in messages),
            max_tokens=sampling.max_tokens,
        )
        choice, usage = reply.choices[0], _cost(reply.usage, self.endpoint.price)
        return Completion(
            text=choice.message.content or "",
            truncated=choice.finish_reason == "length",
            usage=replace(usage, retries=retries),
        )

    async def _request(self, messages: Sequence[Message], sampling: Sampling) -> _ChatReply:
        settings: dict[str, Any] = {
            "temperature": sampling.temperature,
            self.completion_limit: sampling.max_tokens,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
            "stop": list(sampling.stop) or None,
        }
        asked = {name: value for name, value in settings.items() if value is not None}
        body = {"model": self.endpoint.model, "messages": list(messages), **asked, **sampling.extra}
        return _ChatReply.model_validate_json(await self.endpoint.post("/chat/completions", body))


@dataclass(frozen=True)
class OpenAICompatibleEmbedder:
    """Sentence embeddings from an endpoint; each text is asked for once per process."""

    endpoint: Endpoint
    _known: dict[str, list[float]] = field(default_factory=dict[str, list[float]], repr=False, compare=False)

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """One vector per text; see ``gpo.models.Embedder``."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._known]
        if missing:
            reply, _ = await self.endpoint.attempt(
                lambda: self._request(missing),
                lambda reply: _cost(reply.usage, self.endpoint.price),
                prompt_characters=sum(map(len, missing)),
                max_tokens=1,
            )
            self._known.update(zip(missing, (row.embedding for row in reply.data), strict=True))
        return [self._known[text] for text in texts]

    async def _request(self, texts: list[str]) -> _EmbeddingReply:
        body = {"model": self.endpoint.model, "input": texts, "encoding_format": "float"}
        reply = await self.endpoint.post("/embeddings", body)
        return _EmbeddingReply.model_validate_json(reply, context={"num_texts": len(texts)})


# What we read of a reply. The client's own types let any reply through, and fail where it is read.


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


def _cost(usage: _Usage | None, price: Price) -> Usage:
    sent, generated = (usage.prompt_tokens or 0, usage.completion_tokens or 0) if usage else (0, 0)
    return Usage(requests=1, prompt_tokens=sent, completion_tokens=generated, cost_usd=price.of(sent, generated))


class _ChatReply(BaseModel):
    choices: Annotated[list[_Choice], Field(min_length=1)]
    usage: _Usage | None = None


class _Embedding(BaseModel):
    embedding: Annotated[list[float], Field(min_length=1)]


class _EmbeddingReply(BaseModel):
    data: list[_Embedding]
    usage: _Usage | None = None

    @model_validator(mode="after")
    def _one_for_each_text(self, info: ValidationInfo) -> Self:
        if info.context and len(self.data) != info.context["num_texts"]:
            raise ValueError("holds another number of embeddings than of texts")
        return self
