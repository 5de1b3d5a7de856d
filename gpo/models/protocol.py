"""What the algorithm needs of a language model: one reply to one conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypedDict


class Message(TypedDict):
    """One turn of a conversation, in the form of the OpenAI chat API."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a reply is drawn. ``None`` leaves a setting to the endpoint.

    ``temperature`` is in [0, 2], ``max_tokens`` counts generated tokens, ``top_p`` is in (0, 1], ``extra`` holds
    fields that only some endpoints know (``min_p``, ``top_k``) and is sent as it is. ``seed`` makes a reply
    repeatable where the endpoint supports it.
    """

    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    seed: int | None = None

    def seeded(self, seed: int) -> Sampling:
        """The same settings with another seed."""
        return replace(self, seed=seed)

    def stopping_at(self, stop: tuple[str, ...]) -> Sampling:
        """The same settings with further strings at which generation stops."""
        return replace(self, stop=(*self.stop, *stop))


@dataclass(frozen=True, slots=True)
class Usage:
    """What calls cost. All are counts but ``cost_usd``; a sum of usages is the usage of the whole.

    ``requests`` counts calls answered by the endpoint, ``cached`` calls answered without it, ``retries`` attempts that
    failed and were repeated, ``failures`` calls given up. Of the requests, ``empty`` counts those without text in the
    reply, ``truncated`` those whose reply was cut off, and ``unmetered`` those of which the endpoint does not say, or
    does not say sensibly, how many tokens they took; their tokens count as 0. ``cached_tokens`` and ``cached_usd`` are
    what the cached calls took when they were made, prompt and completion together.
    """

    requests: int = 0
    cached: int = 0
    retries: int = 0
    failures: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    empty: int = 0
    truncated: int = 0
    unmetered: int = 0
    cached_tokens: int = 0
    cached_usd: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.requests + other.requests,
            self.cached + other.cached,
            self.retries + other.retries,
            self.failures + other.failures,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cost_usd + other.cost_usd,
            self.empty + other.empty,
            self.truncated + other.truncated,
            self.unmetered + other.unmetered,
            self.cached_tokens + other.cached_tokens,
            self.cached_usd + other.cached_usd,
        )


@dataclass(frozen=True, slots=True)
class Completion:
    """One reply. ``truncated`` says that it ended at ``max_tokens``, not where the model stopped by itself."""

    text: str
    usage: Usage
    truncated: bool = False


class ChatModel(Protocol):
    """A language model behind a chat interface."""

    async def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        """Reply to a conversation.

        An empty reply is a reply: ``text`` is then ``""``.

        Raises:
            ModelUnavailable: after bounded retries.
            ModelRefused: at once.
        """
        ...


class Embedder(Protocol):
    """Maps texts to vectors whose cosine says how alike the texts are in meaning."""

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """One vector per text, all of one length D ≥ 1, in the order of the texts; for no texts, no vectors.

        Raises:
            ModelUnavailable: after bounded retries.
            ModelRefused: at once.
        """
        ...
