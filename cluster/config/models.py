"""Section ``models``: the task model, the optimizer model, the judge and the embedding model."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, JsonValue, PositiveFloat, PositiveInt, Tag, field_validator, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from cluster.config.section import ConfigPath, OptionInfo, Section, VariableName, by_kind
from gpo.models.endpoint import Endpoint, KeySource
from gpo.models.protocol import Sampling
from gpo.models.replies import Price
from gpo.models.retrying import RetryPolicy

_RESERVED = {
    "model",
    "messages",
    "n",
    "stream",
    "seed",
    "stop",
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
}
MAY_CHANGE, TRACKED = OptionInfo(may_change=True), OptionInfo(tracked=True)
OPENAI_URL = "https://api.openai.com/v1"


class SamplingConfig(Section):
    """How replies are drawn; what is left out or ``null`` is up to the endpoint."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """0 always takes the likeliest token; up to 2. Left out: 0 for the task model and the judge, 1 for the optimizer
    model, as in the reference runs. ``null`` sends none, for models that accept only their own."""
    max_tokens: PositiveInt | None = None
    """Tokens that may be generated."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the probability mass to draw from."""
    stop: tuple[str, ...] = ()
    """Strings at which generation ends."""
    extra: Annotated[dict[str, JsonValue], OptionInfo(sensitive="value")] = Field(default_factory=dict)
    """Further fields of the request body, sent as they are, e.g. ``{min_p: 0.05}``."""

    @field_validator("extra")
    @classmethod
    def _nothing_that_is_set_elsewhere(cls, extra: dict[str, JsonValue]) -> dict[str, JsonValue]:
        # `n` would buy replies that nobody reads, `stream` replies that nobody can.
        for name in extra:
            if name in _RESERVED:
                raise PydanticCustomError("reserved", "is set by the program; leave it out", {"at": name})
        return extra

    def build(self) -> Sampling:
        """The settings for the core."""
        return Sampling(
            temperature=self.temperature,
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
    if parts.query or parts.fragment:
        raise PydanticCustomError("base_url", "holds a query; write it up to and including /v1")
    if parts.username or parts.password:
        raise PydanticCustomError("base_url", "holds a user name or password; set api_key_env instead")
    return url.rstrip("/")


class EndpointConfig(Section):
    """An endpoint that speaks the OpenAI API."""

    kind: Annotated[Literal["openai"], TRACKED] = "openai"
    base_url: Annotated[
        str,
        AfterValidator(_without_credentials),
        Field(validate_default=True),
        OptionInfo(may_change=True, sensitive="value"),
    ] = ""
    """Up to and including ``/v1``. Left out: the variable OPENAI_BASE_URL, or else OpenAI's own endpoint."""
    model: Annotated[str, Field(min_length=1), TRACKED]
    """The model's name at the endpoint."""
    api_key_env: Annotated[VariableName | None, OptionInfo(may_change=True, sensitive="variable")] = None
    """Environment variable with the API key. Left out: OPENAI_API_KEY if it is set, and else no key."""
    api_key_file: Annotated[ConfigPath | None, OptionInfo(may_change=True, sensitive="file")] = None
    """File with the API key, in place of a variable."""
    max_concurrency: Annotated[PositiveInt, MAY_CHANGE] = 16
    """Requests under way at once, in all processes together. Roles at one ``base_url`` share what the largest of them
    allows. Where the endpoint answers 429 (too many), fewer are tried, and more again with time."""
    requests_per_min: Annotated[PositiveInt | None, MAY_CHANGE] = None
    """Requests to this model in any 60 seconds, at most, in all processes together."""
    tokens_per_min: Annotated[PositiveInt | None, MAY_CHANGE] = None
    """Tokens sent and generated in a minute, likewise; on average, since a reply's length shows afterwards."""
    timeout_s: Annotated[PositiveFloat, MAY_CHANGE] = 120.0
    """Bound on one request, in seconds."""
    max_attempts: Annotated[PositiveInt, MAY_CHANGE] = 6
    """Tries of one call in all; what is transient is tried again after a growing, jittered wait."""
    patience_s: Annotated[PositiveFloat, MAY_CHANGE] = 300.0
    """How long a call is tried again that the endpoint refuses as one too many (429), in seconds; these tries are not
    counted."""
    price: Annotated[PriceConfig, MAY_CHANGE] = PriceConfig()
    check: Annotated[bool, MAY_CHANGE] = True
    """Before the run, look the model up in the endpoint's list of models (no language model is called)."""

    @field_validator("base_url", mode="before")
    @classmethod
    def _default_base_url(cls, value: Any) -> Any:
        return value or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL

    def build(self) -> Endpoint:
        """The endpoint."""
        return Endpoint(
            base_url=self.base_url,
            model=self.model,
            key=self.key,
            max_concurrency=self.max_concurrency,
            timeout_s=self.timeout_s,
            price=Price(self.price.prompt, self.price.completion),
        )

    @property
    def retries(self) -> RetryPolicy:
        """When a request is repeated."""
        return RetryPolicy(max_attempts=self.max_attempts, patience_s=self.patience_s)

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

    sampling: Annotated[SamplingConfig, TRACKED] = SamplingConfig()
    completion_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The field that carries ``sampling.max_tokens``; OpenAI's reasoning models want ``max_completion_tokens``."""


class EmbeddedChatConfig(Section):
    """A small model that this program serves itself, on the CPU, behind an OpenAI-compatible endpoint.

    The roles share one server where ``gguf``, ``parallel``, ``context`` and ``threads`` are the same.
    """

    kind: Annotated[Literal["embedded"], TRACKED]
    gguf: ConfigPath | None = None
    """Weights in GGUF form. Left out: SmolLM2-135M-Instruct, which is installed with the program."""
    parallel: Annotated[PositiveInt, MAY_CHANGE] = 8
    """Requests decoded together."""
    context: PositiveInt = 2048
    """Tokens that one request may take, prompt and reply together."""
    threads: Annotated[PositiveInt | None, MAY_CHANGE] = None
    """CPU threads. Left out: one per core."""
    timeout_s: Annotated[PositiveFloat, MAY_CHANGE] = 600.0
    """Bound on one request, in seconds."""
    sampling: Annotated[SamplingConfig, TRACKED] = SamplingConfig()
    """``max_tokens`` left out: 256, since a small model may not find an end by itself."""

    @property
    def bounded_sampling(self) -> SamplingConfig:
        """The sampling with a bound on generated tokens."""
        return self.sampling.model_copy(update={"max_tokens": self.sampling.max_tokens or 256})


class EmbeddedEmbeddingConfig(Section):
    """Static word vectors in the process itself: no endpoint, no download."""

    kind: Annotated[Literal["embedded"], TRACKED] = "embedded"


ChatModelConfig = Annotated[
    Annotated[ChatEndpointConfig, Tag("openai")] | Annotated[EmbeddedChatConfig, Tag("embedded")],
    by_kind("openai", "embedded"),
]
EmbeddingConfig = Annotated[
    Annotated[EndpointConfig, Tag("openai")] | Annotated[EmbeddedEmbeddingConfig, Tag("embedded")],
    by_kind("openai", "embedded"),
]


# A name of its own, since a union with None needs a member that can be hashed.
JudgeConfig = TypeAliasType("JudgeConfig", ChatModelConfig)
_TEMPERATURES = {"task": 0.0, "optimizer": 1.0, "judge": 0.0}


class ModelsConfig(Section):
    """The language models."""

    task: ChatModelConfig
    """Answers the task's examples."""
    optimizer: Annotated[ChatModelConfig, OptionInfo(tunable=True)]
    """Writes new prompts."""
    judge: JudgeConfig | None = None
    """Judges the answers of tasks with ``answer.kind: judge``. Left out: the optimizer model, at temperature 0."""
    embedding: EmbeddingConfig = EmbeddedEmbeddingConfig()
    """Embeds prompts, for retrieval by relevance."""

    @model_validator(mode="before")
    @classmethod
    def _temperatures(cls, models: Any) -> Any:
        """Write the default temperatures out, so that leaving one out and sending none can be told apart."""
        if not isinstance(models, dict):
            return models
        return {role: _with_temperature(model, _TEMPERATURES.get(role)) for role, model in models.items()}

    @property
    def judging(self) -> ChatEndpointConfig | EmbeddedChatConfig:
        """What judges: the judge, or the optimizer model, with a temperature of 0 where it takes any."""
        if self.judge is not None:
            return self.judge
        sampling = self.optimizer.sampling
        if sampling.temperature is None:
            return self.optimizer
        return self.optimizer.model_copy(update={"sampling": sampling.model_copy(update={"temperature": 0.0})})


def _with_temperature(model: Any, temperature: float | None) -> Any:
    if temperature is None or not isinstance(model, dict):
        return model
    sampling = model.get("sampling", {})
    if not isinstance(sampling, dict) or "temperature" in sampling:
        return model
    return {**model, "sampling": {**sampling, "temperature": temperature}}
