"""An endpoint that speaks the OpenAI API: where it is, its key and price, how it may be used, and its failures."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import openai
import tenacity
from pydantic import ValidationError

from gpo.aiohttp_transport import AiohttpTransport, is_proxied
from gpo.errors import ConfigError, ModelRefused, ModelUnavailable, RefusalReason
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
        max_concurrency: requests under way at once, from one process.
        timeout_s: bound on one request, in seconds.
        max_attempts: how often one call is tried in all, ≥ 1.
        max_backoff_s: longest wait between two tries, in seconds; a longer ``Retry-After`` is cut to it.
        price: to reckon costs with.
    """

    base_url: str
    model: str
    key: KeySource = field(default_factory=KeySource)
    max_concurrency: int = 16
    timeout_s: float = 120.0
    max_attempts: int = 6
    max_backoff_s: float = 60.0
    price: Price = field(default_factory=Price)

    @cached_property
    def client(self) -> openai.AsyncOpenAI:
        """The client, with one connection pool for this endpoint."""
        # Proxies are left to the stock transport, of which there are more kinds than aiohttp knows.
        transport = None if is_proxied(self.base_url) else AiohttpTransport(self.max_concurrency)
        limits = httpx2.Limits(max_connections=self.max_concurrency, max_keepalive_connections=self.max_concurrency)
        # Retries are ours, to be counted and spread; see ``attempt``.
        return openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=self.key.read(),
            max_retries=0,
            timeout=self.timeout_s,
            http_client=openai.DefaultAsyncHttpxClient(limits=limits, timeout=self.timeout_s, transport=transport),
        )

    async def post(self, path: str, body: Mapping[str, object]) -> bytes:
        """The body of the reply to one request; to be called through ``attempt``, which counts, repeats and explains.

        ``client.post`` rather than the client's typed methods: building their types takes longer than the request.

        Raises:
            ModelUnavailable: no whole reply within ``timeout_s``.
            openai.APIError: whatever else went wrong.
        """
        try:
            # The client's own limit is on each wait for a byte, so that a reply may drip for ever.
            async with asyncio.timeout(self.timeout_s):
                response = await self.client.post(path, cast_to=httpx2.Response, body=body)
        except TimeoutError:
            raise ModelUnavailable(self._said(f"no reply within {self.timeout_s:g} s")) from None
        return response.content

    @cached_property
    def _slots(self) -> asyncio.Semaphore:
        return asyncio.Semaphore(self.max_concurrency)

    def __getstate__(self) -> dict[str, Any]:
        live = {"client", "_slots"}
        return {name: value for name, value in self.__dict__.items() if name not in live}

    async def attempt(self, call: Callable[[], Awaitable[_T]]) -> tuple[_T, int]:
        """What the call returns, and how many retries that took.

        Transient failures are tried again after a jittered, exponentially growing wait, or the endpoint's own
        ``Retry-After``. No place is held while waiting.

        Raises:
            ModelUnavailable: after ``max_attempts`` tries.
            ModelRefused: at once.
        """
        retries = 0
        try:
            async for attempt in tenacity.AsyncRetrying(
                stop=tenacity.stop_after_attempt(self.max_attempts),
                wait=_wait(self.max_backoff_s),
                retry=tenacity.retry_if_exception_type(ModelUnavailable),
                reraise=True,
            ):
                with attempt:
                    retries = attempt.retry_state.attempt_number - 1
                    async with self._slots:
                        return await self._once(call), retries
        except ModelUnavailable as failure:
            raise ModelUnavailable(str(failure), retries) from None
        raise AssertionError("unreachable: tenacity returns or raises")

    async def _once(self, call: Callable[[], Awaitable[_T]]) -> _T:
        # The client's own errors are not chained: they hold the request, and with it the key.
        try:
            return await call()
        except openai.APIStatusError as error:
            raise self._failure(error) from None
        except openai.APIConnectionError as error:
            raise ModelUnavailable(self._said(str(error.__cause__ or error) or type(error).__name__)) from None
        except ValidationError as error:  # a proxy's page, a cut body, an error that calls itself a success
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise ModelUnavailable(self._said(f"the reply is not what was asked for: {place} {first['msg']}")) from None

    def _failure(self, error: openai.APIStatusError) -> ModelUnavailable | ModelRefused:
        status = error.status_code
        said = self._said(f"HTTP {status}: {error.message}")
        # An account without quota answers 429 as well, but waiting does not help it.
        if status in (401, 403) or error.code == "insufficient_quota":
            return self._refusal(said, RefusalReason.KEY)
        if status == 404:
            return self._refusal(said, RefusalReason.MODEL)
        if status in _TRANSIENT or status >= 500:
            return ModelUnavailable(said, 0, _retry_after_s(error))
        return self._refusal(said, RefusalReason.REQUEST)

    def _refusal(self, said: str, reason: RefusalReason) -> ModelRefused:
        return ModelRefused(said, reason, self.model, self.base_url, self.key.place)

    def _said(self, text: str, length: int = 300) -> str:
        """What the endpoint said, in one line, without the key, which some servers repeat."""
        line = without_controls(" ".join(text.split()))
        key = self.client.api_key
        if len(key) >= _SHORTEST_KEY:  # a shorter one is a word like any other
            line = line.replace(key, "***")
        return f"{self.model} at {self.base_url}: {line if len(line) <= length else line[:length] + '…'}"


_SHORTEST_KEY = 6
_TRANSIENT = {408, 409, 425, 429}


def _wait(max_backoff_s: float) -> Callable[[tenacity.RetryCallState], float]:
    backoff = tenacity.wait_random_exponential(multiplier=0.5, max=max_backoff_s)

    def wait(state: tenacity.RetryCallState) -> float:
        failure = state.outcome.exception() if state.outcome else None
        asked = failure.retry_after_s if isinstance(failure, ModelUnavailable) else None
        return backoff(state) if asked is None else min(asked, max_backoff_s)

    return wait


def _retry_after_s(error: openai.APIStatusError) -> float | None:
    try:
        return max(0.0, float(error.response.headers["retry-after"]))
    except (KeyError, ValueError):
        return None
