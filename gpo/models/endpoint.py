"""An endpoint that speaks the OpenAI API: where it is, its key and price, how it may be used, and its failures."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import openai
from openai import RequestOptions
from pydantic import ValidationError

from gpo import events as observing
from gpo.errors import ConfigError, GPOError, ModelRefused, ModelUnavailable, RefusalReason
from gpo.limits.gate import Gate
from gpo.limits.limiter import LocalLimiter
from gpo.limits.messages import Pool
from gpo.models.bodies import PACKINGS, ReplyTooLarge, bound_reply
from gpo.models.protocol import Usage
from gpo.models.redaction import Redaction
from gpo.models.retrying import Retries
from gpo.models.transport import AiohttpTransport, is_proxied
from gpo.text import without_controls

_T = TypeVar("_T")

NO_KEY = "no-key"
"""Sent where no key is configured: servers on one's own machine ask for none, but the client insists on one."""


@dataclass(frozen=True, slots=True)
class KeySource:
    """Where the API key is. The key itself is read in the process that calls, and kept nowhere else.

    Attributes:
        env: name of an environment variable.
        file: path of a file that holds the key and nothing else; goes before ``env``.
        required: whether a missing variable is an error, rather than a server that needs no key.
    """

    env: str | None = "OPENAI_API_KEY"
    file: str | None = None
    required: bool = False

    @property
    def place(self) -> str:
        """Where the key is, for messages; tells one source from another."""
        return self.file or f"the environment variable {self.env}"

    def read(self) -> str:
        """The key, or a placeholder where none is set and none is required.

        Raises:
            ConfigError: the file cannot be read or is empty, a required variable is not set, or what is there cannot
                be a key. What is there is never shown.
        """
        if self.file:
            return self._sound(self._from_file(self.file), "api_key_file", f"the content of {self.file!r}")
        key = os.environ.get(self.env, "").strip() if self.env else ""
        if not key and self.required:
            raise ConfigError(
                "api_key_env",
                f"environment variable {self.env} is not set",
                f"export {self.env}=… (on a cluster, for every node's processes)",
            )
        return self._sound(key or NO_KEY, "api_key_env", f"the content of environment variable {self.env}")

    @staticmethod
    def _from_file(file: str) -> str:
        try:
            key = Path(file).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
            raise ConfigError("api_key_file", f"{file!r} cannot be read ({reason})", "name a readable file") from None
        if not key:
            raise ConfigError("api_key_file", f"{file!r} is empty", "put the key into it")
        return key

    @staticmethod
    def _sound(key: str, field: str, what: str) -> str:
        # A key travels in an HTTP header; the client would quote one that does not fit there in its error.
        if not all("!" <= character <= "~" for character in key):
            raise ConfigError(field, f"{what} has characters that no key has", "put the key there, and nothing else")
        return key


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per million tokens."""

    prompt: float = 0.0
    completion: float = 0.0

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Dollars for one call."""
        return (self.prompt * prompt_tokens + self.completion * completion_tokens) / 1e6


@dataclass(frozen=True)
class Endpoint:
    """An HTTP endpoint and how it may be used. Holds no key and no connection until its first call, so it pickles.

    Attributes:
        base_url: up to and including ``/v1``.
        model: the model's name there.
        key: where the API key is.
        max_concurrency: requests under way at once.
        timeout_s: bound on one request, in seconds.
        max_attempts: how often one call is tried in all, ≥ 1; see ``gpo.models.retrying.Retries``.
        patience_s: how long one is tried again that is refused as one too many (HTTP 429), or finds the endpoint away,
            in seconds.
        max_backoff_s: longest wait between two tries, in seconds; a longer ``Retry-After`` is cut to it.
        price: to reckon costs with.
        gate: lets its calls through; ``None`` is one of its own, which knows ``max_concurrency`` and no other limit.
    """

    base_url: str
    model: str
    key: KeySource = field(default_factory=KeySource)
    max_concurrency: int = 16
    timeout_s: float = 120.0
    max_attempts: int = 6
    patience_s: float = 300.0
    max_backoff_s: float = 60.0
    price: Price = field(default_factory=Price)
    gate: Gate | None = None

    @cached_property
    def client(self) -> openai.AsyncOpenAI:
        """The client, with one connection pool for this endpoint."""
        # Proxies are left to the stock transport, of which there are more kinds than aiohttp knows.
        proxied = is_proxied(self.base_url)
        transport = None if proxied else AiohttpTransport(self.max_concurrency)
        limits = httpx2.Limits(max_connections=self.max_concurrency, max_keepalive_connections=self.max_concurrency)
        # Retries are ours, to be counted and spread; see ``attempt``.
        return openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=self.key.read(),
            max_retries=0,
            timeout=self.timeout_s,
            # What comes packed could be of any size unpacked; the stock transport does not bound that.
            default_headers={"Accept-Encoding": "identity" if proxied else PACKINGS},
            http_client=openai.DefaultAsyncHttpxClient(
                limits=limits,
                timeout=self.timeout_s,
                transport=transport,
                event_hooks={"response": [bound_reply] if proxied else []},
            ),
        )

    async def post(self, path: str, body: Mapping[str, object]) -> bytes:
        """The body of the reply to one request; to be called through ``attempt``, which counts, repeats and explains.

        The key may be in it, should the endpoint repeat it: what a model says goes through ``masked``.

        ``client.post`` rather than the client's typed methods: building their types takes longer than the request.

        Raises:
            ModelUnavailable: no whole reply within ``timeout_s``.
            openai.APIError: whatever else went wrong.
        """
        try:
            # The client's own limit is on each wait for a byte, so that a reply may drip for ever.
            async with asyncio.timeout(self.timeout_s):
                response = await self.client.post(
                    self._root + path, cast_to=httpx2.Response, body=body, options=self._options
                )
        except TimeoutError:
            raise ModelUnavailable(self._said(f"no reply within {self.timeout_s:g} s")) from None
        return response.content

    def masked(self, text: str) -> str:
        """What a model said, without the key: it is saved and shown."""
        return self._redaction.reply(text)

    @cached_property
    def _redaction(self) -> Redaction:
        # Where no key is configured, its placeholder is nobody's secret.
        key = self.client.api_key
        return Redaction("" if key == NO_KEY else key)

    @cached_property
    def _root(self) -> str:
        return str(self.client.base_url).rstrip("/")

    @cached_property
    def _options(self) -> RequestOptions:
        """What the client would otherwise copy or make up for each request, at a tenth of what a call costs."""
        return {
            "headers": {},
            "max_retries": 0,
            "timeout": self.timeout_s,
            "params": {},
            "security": {"bearer_auth": True},
            "idempotency_key": "-",  # of no use without retries, and never sent
        }

    @cached_property
    def _gate(self) -> Gate:
        if self.gate is not None:
            return self.gate
        pool = Pool(self.base_url, self.model, self.max_concurrency, self.max_concurrency)
        return Gate(LocalLimiter(), pool)

    def __getstate__(self) -> dict[str, Any]:
        live = {"client", "_root", "_options", "_gate", "_redaction"}
        return {name: value for name, value in self.__dict__.items() if name not in live}

    async def attempt(
        self,
        call: Callable[[], Awaitable[_T]],
        usage: Callable[[_T], Usage],
        prompt_characters: int,
        max_tokens: int | None = None,
    ) -> tuple[_T, int]:
        """What the call returns, and how many retries that took.

        Every try is let through by the gate. Transient failures are tried again; no place is held while waiting.

        Args:
            usage: what a reply cost.
            prompt_characters, max_tokens: what is sent, and the bound on what is generated: how long the reply may be.

        Raises:
            ModelUnavailable: after ``max_attempts`` tries that count, or ``patience_s`` of others.
            ModelRefused: at once.
            BudgetExhausted: nothing may be called any more.
            OutOfReach: the limiter is.
        """

        async def once() -> _T:
            async with self._gate.admitted(prompt_characters, max_tokens) as admission:
                try:
                    reply = await self._once(call)
                except ModelUnavailable as failure:
                    if failure.too_many:
                        admission.refused(min(failure.retry_after_s or 0.0, self.max_backoff_s))
                    raise
                admission.answered(usage(reply))
                return reply

        retries = Retries(self.max_attempts, self.patience_s, self.max_backoff_s)
        return await observing.call(self._gate.pool, retries.of, once)

    async def _once(self, call: Callable[[], Awaitable[_T]]) -> _T:
        # The client's own errors are not chained: they hold the request, and with it the key.
        try:
            return await call()
        except openai.APIStatusError as error:
            raise self._failure(error) from None
        except openai.APIConnectionError as error:
            if isinstance(error.__cause__, ReplyTooLarge):  # would be paid for again, and be as large
                raise self._refusal(self._said(str(error.__cause__)), RefusalReason.REQUEST) from None
            said = self._said(str(error.__cause__ or error) or type(error).__name__)
            # Not one that breaks later: the call itself may be what the endpoint does not survive.
            raise ModelUnavailable(said, is_away=isinstance(error.__cause__, httpx2.ConnectError)) from None
        except ValidationError as error:  # a proxy's page, a cut body, an error that calls itself a success
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise ModelUnavailable(self._said(f"the reply is not what was asked for: {place} {first['msg']}")) from None
        except GPOError:
            raise
        except Exception as error:  # whatever the client trips over; one odd reply ends no trajectory
            said = f"the reply cannot be read ({type(error).__name__}: {error})"
            raise ModelUnavailable(self._said(said)) from None

    def _failure(self, error: openai.APIStatusError) -> ModelUnavailable | ModelRefused:
        status = error.status_code
        said = self._said(f"HTTP {status}: {error.message}")
        # An account without quota answers 429 as well, but waiting does not help it.
        if status in (401, 403) or error.code == "insufficient_quota":
            return self._refusal(said, RefusalReason.KEY)
        if status == 404:
            return self._refusal(said, RefusalReason.MODEL)
        if status in _TRANSIENT or status >= 500:
            return ModelUnavailable(
                said, 0, _retry_after_s(error), too_many=status == 429, is_away=status in _NOBODY_BEHIND
            )
        return self._refusal(said, RefusalReason.REQUEST)

    def _refusal(self, said: str, reason: RefusalReason) -> ModelRefused:
        return ModelRefused(said, reason, self.model, self.base_url, self.key.place)

    def _said(self, text: str, length: int = 300) -> str:
        """What the endpoint said, in one line, without the key, which some servers repeat."""
        line = self._redaction.message(without_controls(" ".join(text.split())))
        place = re.sub(r"//[^/@]*@", "//", self.base_url)  # without a user and password
        return f"{self.model} at {place}: {line if len(line) <= length else line[:length] + '…'}"


_TRANSIENT = {408, 409, 425, 429}
_NOBODY_BEHIND = {502, 503, 504, 521, 522, 523, 529}
"""What gateways say for an endpoint that is away, and endpoints that are starting or overloaded for themselves."""


def _retry_after_s(error: openai.APIStatusError) -> float | None:
    said = error.response.headers.get("retry-after", "")
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, OverflowError):  # no date, or none that there is
        return None
