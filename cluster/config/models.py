"""Section ``models``: the task model, the optimizer model, the judge and the embedding model."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    JsonValue,
    PositiveFloat,
    PositiveInt,
    Tag,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from cluster.config.functions import FunctionName, FunctionSection, reference
from cluster.config.section import LOCATION, ConfigPath, OptionInfo, Section, VariableName, by_kind, unfit
from gpo.models.credentials import Header, KeySource, fits_header, names_a_secret
from gpo.models.function import FunctionModel
from gpo.models.protocol import Sampling
from gpo.models.replies import Price
from gpo.models.retrying import DEFAULT_MAX_ATTEMPTS, DEFAULT_PATIENCE_S, RetryPolicy
from gpo.user_code.environment import variable

if TYPE_CHECKING:
    from gpo.models.endpoint import Endpoint

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
_RESERVED_HEADERS = {"accept-encoding", "connection", "content-length", "content-type", "host", "transfer-encoding"}
MAY_CHANGE, TRACKED = OptionInfo(may_change=True), OptionInfo(tracked=True)
OF_SERVICE = OptionInfo(may_change=True, posted="service")
_KEY_VARIABLE = OptionInfo(may_change=True, sensitive="variable", posted="service")
_KEY_FILE = OptionInfo(may_change=True, sensitive="file", posted="service")
_MAY_HOLD_KEY = OptionInfo(may_change=True, sensitive="value", posted="service")
OPENAI_URL = "https://api.openai.com/v1"


class SamplingConfig(Section):
    """How replies are sampled. The endpoint decides what is left out or ``null``."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Sampling temperature; 0 always takes the likeliest token. Default: 0 for the task model and the judge, 1 for the
    optimizer model, as in the reference runs. ``null`` sends none, for models that accept only their own."""
    max_tokens: PositiveInt | None = None
    """Most tokens that a reply may have."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the probability mass to sample from."""
    seed: bool = True
    """Send a seed with each request, so that replies repeat where the endpoint supports it. ``false`` sends none, for
    endpoints that refuse the field."""
    stop: tuple[str, ...] = ()
    """Strings that end a reply."""
    extra: Annotated[dict[str, JsonValue], OptionInfo(sensitive="value")] = Field(default_factory=dict)
    """Further fields of the request body, sent unchanged, e.g. ``{min_p: 0.05}``."""

    @field_validator("extra")
    @classmethod
    def _not_reserved(cls, extra: dict[str, JsonValue]) -> dict[str, JsonValue]:
        # `n` would pay for replies that are not read, and `stream` changes their format.
        for name in extra:
            if name in _RESERVED:
                raise unfit("is set by the program; leave it out", at=name)
        return extra

    def build(self) -> Sampling:
        """The settings as models take them."""
        return Sampling(
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            top_p=self.top_p,
            stop=self.stop,
            extra=self.extra,
        )


class PriceConfig(Section):
    """Price of a model in dollars per million tokens, for the costs in results and for ``budget.usd``."""

    prompt: Annotated[float, Field(ge=0)] = 0.0
    """Dollars per million tokens sent."""
    completion: Annotated[float, Field(ge=0)] = 0.0
    """Dollars per million tokens generated."""


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
    for route in ("/chat/completions", "/completions", "/embeddings", "/responses", "/models"):
        if parts.path.rstrip("/").endswith(route):
            raise PydanticCustomError("base_url", f"ends with {route}, which the program adds; write it up to /v1")
    return url.rstrip("/")


class FromVariable(Section):
    """A value that stays outside the configuration."""

    env: Annotated[VariableName, OptionInfo(sensitive="variable")]
    """Environment variable that holds the value. It is kept secret like a key."""


def _form(value: object) -> str:
    return "variable" if isinstance(value, dict | FromVariable) else "text"


HeaderValue = Annotated[Annotated[str, Tag("text")] | Annotated[FromVariable, Tag("variable")], Discriminator(_form)]


def _header_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
        raise unfit("is not the name of a header; write a name such as X-Organization")
    if name.lower() in _RESERVED_HEADERS:
        raise unfit("is a header that the program sets; leave it out")
    return name


HeaderName = Annotated[str, AfterValidator(_header_name)]


class EndpointConfig(Section):
    """An endpoint that speaks the OpenAI API."""

    kind: Annotated[Literal["openai"], TRACKED] = "openai"
    base_url: Annotated[
        str,
        AfterValidator(_without_credentials),
        Field(validate_default=True),
        OptionInfo(may_change=True, sensitive="value"),
    ] = ""
    """Address up to and including ``/v1``. Default: the environment variable OPENAI_BASE_URL, or else OpenAI's own
    endpoint."""
    model: Annotated[str, Field(min_length=1), TRACKED]
    """Name of the model at the endpoint."""
    api_key_env: Annotated[VariableName | None, _KEY_VARIABLE] = None
    """Environment variable with the API key. Default: OPENAI_API_KEY if it is set, otherwise no key."""
    api_key_file: Annotated[ConfigPath | None, _KEY_FILE] = None
    """File with the API key, instead of a variable. It is read again when the endpoint refuses the key."""
    api_key_command: Annotated[
        Annotated[tuple[str, ...], Field(min_length=1)] | None,
        OptionInfo(may_change=True, sensitive="value", posted="refused"),
    ] = None
    """Program and arguments that print the API key, instead of a variable or a file, e.g. ``[gcloud, auth,
    print-access-token]``. It runs without a shell, for at most 30 seconds, and again when the endpoint refuses the
    key. Its output is never shown."""
    api_key_header: Annotated[HeaderName | None, OF_SERVICE] = None
    """Header that carries the API key alone, e.g. ``api-key`` at Azure. Default: ``Authorization: Bearer KEY``."""
    headers: Annotated[dict[HeaderName, HeaderValue], _MAY_HOLD_KEY] = Field(default_factory=dict)
    """Further headers of every request. A value is a text, or ``{env: NAME}`` for the content of an environment
    variable, which is kept secret like a key, e.g. ``{X-Organization: acme, X-Token: {env: PROXY_TOKEN}}``."""
    query: Annotated[dict[str, str], _MAY_HOLD_KEY] = Field(default_factory=dict)
    """Parameters of every request's URL, e.g. ``{api-version: "2024-06-01"}``. They may appear in logs, so keys belong
    into ``headers``."""
    max_concurrency: Annotated[PositiveInt, OF_SERVICE] = 16
    """Most concurrent requests, over all processes. Roles with the same ``base_url`` share the largest of their values.
    After a 429 (too many requests), fewer requests are sent at once, and more again over time."""
    requests_per_min: Annotated[PositiveInt | None, OF_SERVICE] = None
    """Most requests to this model in any 60 seconds, over all processes. Default: no limit."""
    tokens_per_min: Annotated[PositiveInt | None, OF_SERVICE] = None
    """Most tokens, sent and generated, per minute, over all processes; on average, since the length of a reply is known
    only afterwards. Default: no limit."""
    timeout_s: Annotated[PositiveFloat, OF_SERVICE] = 120.0
    """Bound on one request, in seconds."""
    max_attempts: Annotated[PositiveInt, OF_SERVICE] = DEFAULT_MAX_ATTEMPTS
    """Most attempts of one call. Transient failures are retried after a growing, jittered wait."""
    patience_s: Annotated[PositiveFloat, OF_SERVICE] = DEFAULT_PATIENCE_S
    """Seconds for which a call is retried while the endpoint is busy (429, too many requests) or away (no connection,
    or a gateway's 502, 503, 504 or 529). These retries do not count towards ``max_attempts``."""
    price: Annotated[PriceConfig, MAY_CHANGE] = PriceConfig()
    """Price per million tokens. Default: free."""
    check: Annotated[bool, OF_SERVICE] = True
    """Call the model once before the run, as the run will. ``false`` leaves its mistakes to be found by the run."""

    @field_validator("base_url", mode="before")
    @classmethod
    def _default_base_url(cls, value: Any) -> Any:
        return value or variable("OPENAI_BASE_URL") or OPENAI_URL

    @field_validator("headers")
    @classmethod
    def _no_secret_headers(cls, headers: dict[str, str | FromVariable]) -> dict[str, str | FromVariable]:
        for name, value in headers.items():
            if isinstance(value, str) and names_a_secret(name):
                raise unfit(
                    "usually carries a key; put it into an environment variable, and write {env: NAME}", at=name
                )
            if isinstance(value, str) and not fits_header(value):
                raise unfit("does not fit into a header; use printable ASCII characters in one line", at=name)
        return headers

    @field_validator("query")
    @classmethod
    def _no_secret_parameters(cls, query: dict[str, str]) -> dict[str, str]:
        for name in query:
            if names_a_secret(name):
                raise unfit(
                    "usually carries a key, and URLs appear in logs; send it as a header, or set api_key_header",
                    at=name,
                )
        return query

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if self.api_key_command and (self.api_key_env or self.api_key_file):
            raise unfit("is set together with another source of the key; keep one", at="api_key_command")
        return self

    def build(self) -> Endpoint:
        """The endpoint."""
        from gpo.models.endpoint import Endpoint  # imports openai, which takes as long as all else here

        return Endpoint(
            base_url=self.base_url,
            model=self.model,
            key=self.key,
            max_concurrency=self.max_concurrency,
            timeout_s=self.timeout_s,
            price=Price(self.price.prompt, self.price.completion),
            key_header=self.api_key_header,
            headers=tuple(
                Header(name, value) if isinstance(value, str) else Header(name, env=value.env)
                for name, value in self.headers.items()
            ),
            query=tuple(self.query.items()),
        )

    @property
    def variant(self) -> dict[str, Any]:
        """Whatever else chooses what replies: the query, and the headers that the configuration shows in full."""
        headers = {name: value for name, value in self.headers.items() if isinstance(value, str)}
        return {name: value for name, value in (("headers", headers), ("query", self.query)) if value}

    @property
    def retries(self) -> RetryPolicy:
        """When a request is repeated."""
        return RetryPolicy(max_attempts=self.max_attempts, patience_s=self.patience_s)

    @property
    def key(self) -> KeySource:
        """The source of the API key. A key that the configuration names is required."""
        return KeySource(
            env=self.api_key_env or "OPENAI_API_KEY",
            file=str(self.api_key_file) if self.api_key_file else None,
            required=self.api_key_env is not None or self.base_url == OPENAI_URL,
            command=self.api_key_command or (),
        )


class ChatEndpointConfig(EndpointConfig):
    """A chat model behind an endpoint."""

    sampling: Annotated[SamplingConfig, TRACKED] = SamplingConfig()
    """How replies are sampled."""
    completion_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """Field of the request that carries ``sampling.max_tokens``; OpenAI's reasoning models want
    ``max_completion_tokens``."""


class EmbeddedChatConfig(Section):
    """A small model that this program serves on the CPU, behind an OpenAI-compatible endpoint.

    Roles with the same ``gguf``, ``parallel``, ``context`` and ``threads`` share one server.
    """

    kind: Annotated[Literal["embedded"], TRACKED]
    gguf: ConfigPath | None = None
    """File with the weights in GGUF format. Default: SmolLM2-135M-Instruct, which is installed with the program."""
    parallel: Annotated[PositiveInt, MAY_CHANGE] = 8
    """Requests that are decoded together."""
    context: PositiveInt = 2048
    """Most tokens of one request, prompt and reply together."""
    threads: Annotated[PositiveInt | None, MAY_CHANGE] = None
    """CPU threads. Default: one per core."""
    timeout_s: Annotated[PositiveFloat, MAY_CHANGE] = 600.0
    """Bound on one request, in seconds."""
    sampling: Annotated[SamplingConfig, TRACKED] = SamplingConfig()
    """How replies are sampled. ``max_tokens`` defaults to 256, since a small model may not end its reply by itself."""

    @property
    def bounded_sampling(self) -> SamplingConfig:
        """The sampling, with a bound on generated tokens."""
        return self.sampling.model_copy(update={"max_tokens": self.sampling.max_tokens or 256})


class FunctionChatConfig(FunctionSection):
    """A Python function of your own as a model: ``async def ask(messages, **sampling) -> str``.

    Its replies are not cached, since they may depend on anything. Tokens are not known, so no budget can bound them.
    """

    kind: Annotated[Literal["function"], TRACKED]
    function: Annotated[FunctionName, TRACKED]
    """The function, ``module:function``. It gets the messages as a list of ``{role, content}``, and those of
    ``temperature``, ``max_tokens``, ``top_p``, ``stop`` and ``seed`` that it takes and that are set. A plain function
    runs in a thread. On a cluster, every node must have the module."""
    folder: Annotated[ConfigPath | None, LOCATION] = None
    """Folder with the module. The working directory is searched next, then the installed packages. Default: this file's
    folder."""
    max_concurrency: Annotated[PositiveInt, MAY_CHANGE] = 16
    """Most concurrent calls, over all processes."""
    timeout_s: Annotated[PositiveFloat, MAY_CHANGE] = 120.0
    """Bound on one call, in seconds."""
    max_attempts: Annotated[PositiveInt, MAY_CHANGE] = DEFAULT_MAX_ATTEMPTS
    """Most attempts of one call, where the function raises an error of the network or of a server."""
    check: Annotated[bool, MAY_CHANGE] = True
    """Call the function once before a run, so that a fault in it shows before anything is paid for."""
    sampling: Annotated[SamplingConfig, TRACKED] = SamplingConfig()
    """How replies are sampled, if the function takes these settings."""

    @property
    def retries(self) -> RetryPolicy:
        """When a call is repeated."""
        return RetryPolicy(max_attempts=self.max_attempts)

    def build(self) -> FunctionModel:
        """The model."""
        return FunctionModel(reference(self.function, self.folder), self.timeout_s)


class EmbeddedEmbeddingConfig(Section):
    """Static word vectors in the process: no endpoint, no download."""

    kind: Annotated[Literal["embedded"], TRACKED] = "embedded"


ChatModelConfig = Annotated[
    Annotated[ChatEndpointConfig, Tag("openai")]
    | Annotated[EmbeddedChatConfig, Tag("embedded")]
    | Annotated[FunctionChatConfig, Tag("function")],
    by_kind("openai", "embedded", "function"),
]
EmbeddingConfig = Annotated[
    Annotated[EndpointConfig, Tag("openai")] | Annotated[EmbeddedEmbeddingConfig, Tag("embedded")],
    by_kind("openai", "embedded"),
]


# A type alias, since a union with None needs members that can be hashed.
JudgeConfig = TypeAliasType("JudgeConfig", ChatModelConfig)
_TEMPERATURES = {"task": 0.0, "optimizer": 1.0, "judge": 0.0}


class ModelsConfig(Section):
    """The language models."""

    task: ChatModelConfig
    """Model that answers the task's examples."""
    optimizer: Annotated[ChatModelConfig, OptionInfo(tunable=True)]
    """Model that writes new prompts."""
    judge: JudgeConfig | None = None
    """Model that judges the answers of tasks with ``answer.kind: judge``. Default: the optimizer model, at temperature
    0."""
    embedding: EmbeddingConfig = EmbeddedEmbeddingConfig()
    """Model that embeds prompts, for retrieval by relevance."""

    @model_validator(mode="before")
    @classmethod
    def _temperatures(cls, models: Any) -> Any:
        """Write the default temperatures out, which distinguishes a missing temperature from ``null``."""
        if not isinstance(models, dict):
            return models
        return {role: _with_temperature(model, _TEMPERATURES.get(role)) for role, model in models.items()}

    @property
    def judging(self) -> ChatEndpointConfig | EmbeddedChatConfig | FunctionChatConfig:
        """The judge, or else the optimizer model, at temperature 0 if it takes a temperature."""
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
