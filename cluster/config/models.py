"""Section ``models``: the task model, the optimizer model and the embedding model."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, Tag, field_validator
from pydantic_core import PydanticCustomError

from cluster.config.section import ConfigPath, Section, by_kind
from gpo.models import Sampling
from gpo.openai_compatible import Endpoint, KeySource, Price

OPENAI_URL = "https://api.openai.com/v1"


class SamplingConfig(Section):
    """How replies are drawn; what is left out is up to the endpoint."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """0 always takes the likeliest token; up to 2."""
    max_tokens: PositiveInt | None = None
    """Tokens that may be generated."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the probability mass to draw from."""
    stop: tuple[str, ...] = ()
    """Strings at which generation ends."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further fields of the request body, sent as they are, e.g. ``{min_p: 0.05}``."""

    def build(self, default_temperature: float) -> Sampling:
        """The settings for the core."""
        return Sampling(
            temperature=default_temperature if self.temperature is None else self.temperature,
            max_tokens=self.max_tokens,
            top_p=self.top_p,
            stop=self.stop,
            extra=self.extra,
        )


class PriceConfig(Section):
    """Dollars per million tokens, for the costs in the summary."""

    prompt: Annotated[float, Field(ge=0)] = 0.0
    """Tokens sent."""
    completion: Annotated[float, Field(ge=0)] = 0.0
    """Tokens generated."""


def _without_credentials(url: str) -> str:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        valid = False
    if not valid:
        raise PydanticCustomError("base_url", "is not an http(s) address; write it up to and including /v1")
    if parts.username or parts.password:
        raise PydanticCustomError("base_url", "holds a user name or password; set api_key_env instead")
    return url.rstrip("/")


def _variable_name(name: str) -> str:
    if not name.isidentifier():
        raise PydanticCustomError("api_key_env", "is not the name of a variable; name it, do not put the key here")
    return name


class EndpointConfig(Section):
    """An endpoint that speaks the OpenAI API."""

    kind: Literal["openai"] = "openai"
    base_url: Annotated[str, AfterValidator(_without_credentials)] = Field(default="", validate_default=True)
    """Up to and including ``/v1``. Left out: the variable OPENAI_BASE_URL, or else OpenAI's own endpoint."""
    model: Annotated[str, Field(min_length=1)]
    """The model's name at the endpoint."""
    api_key_env: Annotated[str, AfterValidator(_variable_name)] | None = None
    """Environment variable with the API key. Left out: OPENAI_API_KEY if it is set, and else no key."""
    api_key_file: ConfigPath | None = None
    """File with the API key, in place of a variable."""
    max_concurrency: PositiveInt = 16
    """Requests under way at once."""
    timeout_s: PositiveFloat = 120.0
    """Bound on one request, in seconds."""
    max_attempts: PositiveInt = 6
    """Tries of one call in all; what is transient is tried again after a growing, jittered wait."""
    price: PriceConfig = PriceConfig()
    check: bool = True
    """Before the run, look the model up in the endpoint's list of models (no language model is called)."""

    @field_validator("base_url", mode="before")
    @classmethod
    def _default_base_url(cls, value: Any) -> Any:
        return value or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL

    def build(self, share: int = 1) -> Endpoint:
        """The endpoint, for one of ``share`` processes that call it side by side."""
        return Endpoint(
            base_url=self.base_url,
            model=self.model,
            key=self.key,
            max_concurrency=max(1, self.max_concurrency // share),
            timeout_s=self.timeout_s,
            max_attempts=self.max_attempts,
            price=Price(self.price.prompt, self.price.completion),
        )

    @property
    def key(self) -> KeySource:
        """Where the key is; one that was named must be there."""
        return KeySource(
            env=self.api_key_env or "OPENAI_API_KEY",
            file=str(self.api_key_file) if self.api_key_file else None,
            required=self.api_key_env is not None or self.base_url == OPENAI_URL,
        )


class ChatEndpointConfig(EndpointConfig):
    """A chat model behind an endpoint."""

    sampling: SamplingConfig = SamplingConfig()
    completion_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The field that carries ``sampling.max_tokens``; OpenAI's reasoning models want ``max_completion_tokens``."""


class EmbeddedChatConfig(Section):
    """A small model that this program serves itself, on the CPU, behind an OpenAI-compatible endpoint.

    Task and optimizer model share one server where ``gguf``, ``parallel``, ``context`` and ``threads`` are the same.
    """

    kind: Literal["embedded"]
    gguf: ConfigPath | None = None
    """Weights in GGUF form. Left out: SmolLM2-135M-Instruct, which is installed with the program."""
    parallel: PositiveInt = 8
    """Requests decoded together."""
    context: PositiveInt = 2048
    """Tokens that one request may take, prompt and reply together."""
    threads: PositiveInt | None = None
    """CPU threads. Left out: one per core."""
    timeout_s: PositiveFloat = 600.0
    """Bound on one request, in seconds."""
    sampling: SamplingConfig = SamplingConfig()
    """``max_tokens`` left out: 256, since a small model may not find an end by itself."""

    @property
    def bounded_sampling(self) -> SamplingConfig:
        """The sampling with a bound on generated tokens."""
        return self.sampling.model_copy(update={"max_tokens": self.sampling.max_tokens or 256})


class EmbeddedEmbeddingConfig(Section):
    """Static word vectors in the process itself: no endpoint, no download."""

    kind: Literal["embedded"] = "embedded"


ChatModelConfig = Annotated[
    Annotated[ChatEndpointConfig, Tag("openai")] | Annotated[EmbeddedChatConfig, Tag("embedded")],
    by_kind("openai", "embedded"),
]
EmbeddingConfig = Annotated[
    Annotated[EndpointConfig, Tag("openai")] | Annotated[EmbeddedEmbeddingConfig, Tag("embedded")],
    by_kind("openai", "embedded"),
]


class ModelsConfig(Section):
    """The language models."""

    task: ChatModelConfig
    """Answers the task's examples."""
    optimizer: ChatModelConfig
    """Writes new prompts."""
    embedding: EmbeddingConfig = EmbeddedEmbeddingConfig()
    """Embeds prompts, for retrieval by relevance."""
