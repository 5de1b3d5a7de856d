"""An endpoint that speaks the OpenAI API: its address, key and price, one request to it, and its failures."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import httpx2
import openai
from openai import RequestOptions
from pydantic import ValidationError

from gpo.errors import ConfigError, GPOError, ModelRefused, ModelUnavailable, RefusalReason
from gpo.models.bodies import ACCEPTED_ENCODINGS, ReplyTooLarge, bound_reply
from gpo.models.redaction import Redaction
from gpo.models.replies import Price, Reply
from gpo.models.transport import AiohttpTransport, is_proxied
from gpo.process import PicklesFieldsOnly
from gpo.text import without_controls

_Reply = TypeVar("_Reply", bound=Reply)

NO_KEY = "no-key"
"""Sent if no key is configured: local servers need none, but the client requires one."""

_MAX_MESSAGE_CHARACTERS = 300
_TRANSIENT = {408, 409, 425, 429}
_ABSENT = {502, 503, 504, 521, 522, 523, 529}
"""Statuses of gateways whose endpoint does not run, and of endpoints that start or are overloaded."""


@dataclass(frozen=True, slots=True)
class KeySource:
    """Where the API key is. Only the process that sends requests reads the key itself.

    Attributes:
        env: name of an environment variable.
        file: path of a file that contains only the key; takes precedence over ``env``.
        required: whether an unset variable is an error, rather than a server that needs no key.
    """

    env: str | None = "OPENAI_API_KEY"
    file: str | None = None
    required: bool = False

    @property
    def location(self) -> str:
        """Where the key is, for messages; different for different sources."""
        return self.file or f"the environment variable {self.env}"

    def read(self) -> str:
        """The key, or a placeholder if there is none and none is required.

        Raises:
            ConfigError: the file cannot be read or is empty, a required variable is not set, or the content cannot be
                a key. The message never contains the content.
        """
        if self.file:
            return self._checked(self._from_file(self.file), "api_key_file", f"the content of {self.file!r}")
        key = os.environ.get(self.env, "").strip() if self.env else ""
        if not key and self.required:
            raise ConfigError(
                "api_key_env",
                f"environment variable {self.env} is not set",
                f"export {self.env}=… (on a cluster, for every node's processes)",
            )
        return self._checked(key or NO_KEY, "api_key_env", f"the content of environment variable {self.env}")

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
    def _checked(key: str, field: str, what: str) -> str:
        # A key is sent in an HTTP header; the client's error would quote one that does not fit there.
        if not all("!" <= character <= "~" for character in key):
            raise ConfigError(field, f"{what} has characters that no key has", "put the key there, and nothing else")
        return key


@dataclass(frozen=True)
class Endpoint(PicklesFieldsOnly):
    """An HTTP endpoint. Pickles without its connections and its key; the first request in a process opens them.

    Attributes:
        base_url: up to and including ``/v1``.
        model: the model's name there.
        key: where the API key is.
        max_concurrency: connections at once.
        timeout_s: bound on one request, in seconds.
        price: to compute costs.
    """

    base_url: str
    model: str
    key: KeySource = field(default_factory=KeySource)
    max_concurrency: int = 16
    timeout_s: float = 120.0
    price: Price = field(default_factory=Price)

    async def request(self, path: str, body: Mapping[str, object], kind: type[_Reply], **context: object) -> _Reply:
        """Send one request and read the reply.

        Args:
            path: below ``base_url``.
            context: further context for ``kind.read``.

        Raises:
            ModelUnavailable: the request failed transiently, or the reply cannot be used.
            ModelRefused: the endpoint refused the request for good.
        """
        # The client's own errors are not chained, since they contain the request and with it the key.
        try:
            # The client's own time limit is per read, so a reply could arrive byte by byte without end.
            async with asyncio.timeout(self.timeout_s):
                # Not the client's typed methods: building their types takes longer than the request.
                response = await self.client.post(
                    self._root + path, cast_to=httpx2.Response, body=body, options=self._options
                )
            return kind.read(response.content, mask=self._redaction.reply, **context)
        except TimeoutError:
            raise ModelUnavailable(self._message(f"no reply within {self.timeout_s:g} s")) from None
        except openai.APIStatusError as error:
            raise self._status_error(error) from None
        except openai.APIConnectionError as error:
            raise self._connection_error(error) from None
        except ValidationError as error:  # a proxy's page, a truncated body, an error sent with a status of success
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            message = f"the reply has an unexpected form: {where} {first['msg']}"
            raise ModelUnavailable(self._message(message)) from None
        except GPOError:
            raise
        except Exception as error:  # whatever the client fails on: a strange reply must not end the trajectory
            message = f"the reply cannot be read ({type(error).__name__}: {error})"
            raise ModelUnavailable(self._message(message)) from None

    @cached_property
    def client(self) -> openai.AsyncOpenAI:
        """The client, with one connection pool for this endpoint."""
        # Proxies need the stock transport, which supports more kinds of them than aiohttp does.
        proxied = is_proxied(self.base_url)
        transport = None if proxied else AiohttpTransport(self.max_concurrency)
        limits = httpx2.Limits(max_connections=self.max_concurrency, max_keepalive_connections=self.max_concurrency)
        return openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=self.key.read(),
            max_retries=0,  # see gpo.models.retrying
            timeout=self.timeout_s,
            # The stock transport does not bound the size of what it decompresses.
            default_headers={"Accept-Encoding": "identity" if proxied else ACCEPTED_ENCODINGS},
            http_client=openai.DefaultAsyncHttpxClient(
                limits=limits,
                timeout=self.timeout_s,
                transport=transport,
                event_hooks={"response": [bound_reply] if proxied else []},
            ),
        )

    @cached_property
    def _redaction(self) -> Redaction:
        key = self.client.api_key
        return Redaction("" if key == NO_KEY else key)

    @cached_property
    def _root(self) -> str:
        return str(self.client.base_url).rstrip("/")

    @cached_property
    def _options(self) -> RequestOptions:
        """Options that the client would otherwise copy or generate for each request, at a tenth of a call's cost."""
        return {
            "headers": {},
            "max_retries": 0,
            "timeout": self.timeout_s,
            "params": {},
            "security": {"bearer_auth": True},
            "idempotency_key": "-",  # needed only for the client's own retries; never sent
        }

    def _status_error(self, error: openai.APIStatusError) -> ModelUnavailable | ModelRefused:
        status = error.status_code
        message = self._message(f"HTTP {status}: {error.message}")
        # An account without quota is refused with status 429 as well, but waiting does not help.
        if status in (401, 403) or error.code == "insufficient_quota":
            return self._refusal(message, RefusalReason.KEY)
        if status == 404:
            return self._refusal(message, RefusalReason.MODEL)
        if status in _TRANSIENT or status >= 500:
            return ModelUnavailable(
                message, 0, _retry_after_s(error), too_many=status == 429, is_away=status in _ABSENT
            )
        return self._refusal(message, RefusalReason.REQUEST)

    def _connection_error(self, error: openai.APIConnectionError) -> ModelUnavailable | ModelRefused:
        cause = error.__cause__
        if isinstance(cause, ReplyTooLarge):  # another request would cost as much, and its reply be as large
            return self._refusal(self._message(str(cause)), RefusalReason.REQUEST)
        message = self._message(str(cause or error) or type(error).__name__)
        # A connection that breaks later does not count as away: the request itself may have crashed the endpoint.
        return ModelUnavailable(message, is_away=isinstance(cause, httpx2.ConnectError))

    def _refusal(self, message: str, reason: RefusalReason) -> ModelRefused:
        return ModelRefused(message, reason, self.model, self.base_url, self.key.location)

    def _message(self, text: str) -> str:
        """An error message in one line, without the key, which some servers repeat."""
        line = self._redaction.message(without_controls(" ".join(text.split())))
        url = re.sub(r"//[^/@]*@", "//", self.base_url)  # without a user and password
        cut = line if len(line) <= _MAX_MESSAGE_CHARACTERS else line[:_MAX_MESSAGE_CHARACTERS] + "…"
        return f"{self.model} at {url}: {cut}"


def _retry_after_s(error: openai.APIStatusError) -> float | None:
    value = error.response.headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):  # not a date, or an impossible one
        return None
