"""What the algorithm needs of models: replies to conversations, and embeddings of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypedDict

from gpo.errors import ModelError
from gpo.models.thinking import answer_in


class Message(TypedDict):
    """One turn of a conversation, in the form of the OpenAI chat API."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a reply is drawn. ``None`` leaves a setting to the endpoint.

    Attributes:
        temperature: in [0, 2].
        max_tokens: bound on generated tokens.
        top_p: in (0, 1].
        stop: strings at which generation stops.
        extra: further fields of the request, which only some endpoints know (``min_p``, ``top_k``).
        seed: makes a reply repeatable where the endpoint supports it.
        limit_field: the field of the request that carries ``max_tokens``; ``None`` is the model's own.
        is_repeatable: whether the same request is meant to get the same reply; ``None``: as temperature and seed say.
    """

    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    seed: int | None = None
    limit_field: Literal["max_tokens", "max_completion_tokens"] | None = None
    is_repeatable: bool | None = None

    def seeded(self, seed: int) -> Sampling:
        """The same settings with another seed."""
        return replace(self, seed=seed)

    def stopping_at(self, stop: tuple[str, ...]) -> Sampling:
        """The same settings with further strings at which generation stops."""
        return replace(self, stop=(*self.stop, *stop))


@dataclass(frozen=True, slots=True)
class Usage:
    """What calls cost. The sum of usages is the usage of all calls together.

    Attributes:
        requests: calls that the endpoint answered.
        cached: calls that were answered without it.
        retries: requests that failed and were repeated.
        failures: calls that were given up.
        prompt_tokens, completion_tokens: sent and generated, also for replies that failed or were filtered.
        cost_usd: in dollars.
        empty, truncated: requests whose reply has no text, or was cut off.
        unmetered: requests for which the endpoint reports no plausible number of tokens; they count as 0 tokens.
        cached_tokens, cached_usd: what the cached calls cost when they were made, prompt and completion together.
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


NO_USAGE = Usage()
"""One object for all answers, since pickling each takes time."""


def billed(failure: ModelError) -> Usage | None:
    """The tokens and the cost of replies that cannot be used; ``None`` if the endpoint reports none."""
    cost = getattr(failure, "billed", None)
    return cost if isinstance(cost, Usage) else None


def given_up(failure: ModelError) -> Usage:
    """The usage of a call that ends with this failure."""
    return (billed(failure) or Usage()) + Usage(failures=1, retries=getattr(failure, "retries", 0))


@dataclass(frozen=True, slots=True)
class Completion:
    """One reply.

    Attributes:
        text: the whole reply, thoughts included, for people to look at.
        truncated: whether generation ended at ``max_tokens`` rather than where the model stopped.
    """

    text: str
    usage: Usage
    truncated: bool = False

    @property
    def answer(self) -> str:
        """The reply without the model's thoughts; empty where it ends before they do. What every program reads."""
        return answer_in(self.text) or ""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One vector per text, all of one length D ≥ 1, in the order of the texts."""

    vectors: Sequence[Sequence[float]]
    usage: Usage


class ChatModel(Protocol):
    """A language model behind a chat interface."""

    async def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        """Reply to a conversation. A reply without text is a reply: ``text`` is then ``""``.

        Raises:
            ModelUnavailable: after bounded retries.
            ModelRefused: at once.
        """
        ...


class EmbeddingModel(Protocol):
    """A model that embeds a limited number of texts at once."""

    async def embed_batch(self, texts: Sequence[str]) -> Embeddings:
        """Embed texts, in one request.

        Raises:
            ModelUnavailable: after bounded retries.
            ModelRefused: at once.
        """
        ...


@dataclass(frozen=True, slots=True)
class Forwarded:
    """The reply to a request that was forwarded as it is.

    Attributes:
        body: the endpoint's JSON reply, complete with tool calls and whatever else it has.
    """

    body: Mapping[str, Any]
    usage: Usage


class ForwardingModel(Protocol):
    """A model that passes requests of a user's program on."""

    async def forward(self, route: str, body: Mapping[str, Any]) -> Forwarded:
        """Send a request of the OpenAI API.

        Args:
            route: below the endpoint's address, such as ``/chat/completions``.
            body: the request; its ``model`` is replaced by the endpoint's.

        Raises:
            ModelUnavailable: after bounded retries.
            ModelRefused: at once.
        """
        ...


class Model(ChatModel, EmbeddingModel, ForwardingModel, Protocol):
    """Everything that an endpoint offers. The models that add limits and retries take one and are one."""


class Embedder(Protocol):
    """Maps texts to vectors whose cosine measures how similar the texts are in meaning."""

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """One vector per text, all of one length D ≥ 1, in the order of the texts; no vectors for no texts.

        Raises:
            ModelUnavailable: after bounded retries.
            ModelRefused: at once.
        """
        ...
