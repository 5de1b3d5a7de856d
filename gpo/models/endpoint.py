"""An endpoint that speaks the OpenAI API: its address, key and price, one request to it, and its failures."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

import httpx2
from pydantic import ValidationError

from gpo.errors import ConfigError, GPOError, ModelRefused, ModelUnavailable, RefusalReason
from gpo.models.bodies import ReplyTooLarge
from gpo.models.credentials import NO_KEY, Header, KeySource
from gpo.models.failures import FailureKind, read_failure, words_in
from gpo.models.protocol import Usage
from gpo.models.redaction import Redaction
from gpo.models.replies import ChatReply, Price, Reply, WholeReply, unstreamed
from gpo.runtime.process import PicklesFieldsOnly
from gpo.text import without_controls

if TYPE_CHECKING:
    import openai
    from openai import RequestOptions

_Reply = TypeVar("_Reply", bound=Reply)

_MAX_MESSAGE_CHARACTERS = 300
_RENEWAL_PAUSE_S = 5.0
"""A key that was read again and is still refused is not read again earlier."""
_REASONS = {
    FailureKind.KEY: RefusalReason.KEY,
    FailureKind.CREDIT: RefusalReason.CREDIT,
    FailureKind.MODEL: RefusalReason.MODEL,
    FailureKind.PATH: RefusalReason.PATH,
    FailureKind.FILTER: RefusalReason.FILTER,
    FailureKind.REQUEST: RefusalReason.REQUEST,
}
_STREAMS_ONLY = re.compile(
    r"(?:only|must|requires?|required).{0,60}\bstream|"
    r"\bstream\w*\b.{0,60}(?:only|must be (?:true|enabled)|required|set to true)",
    re.IGNORECASE,
)


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
        key_header: sends the key in this header, instead of ``Authorization: Bearer``.
        headers: further headers of every request.
        query: parameters of every request's URL.
    """

    base_url: str
    model: str
    key: KeySource = field(default_factory=KeySource)
    max_concurrency: int = 16
    timeout_s: float = 120.0
    price: Price = field(default_factory=Price)
    key_header: str | None = None
    headers: tuple[Header, ...] = ()
    query: tuple[tuple[str, str], ...] = ()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        # A process that receives an endpoint sends requests to it, and should not import this during the first one.
        # The process that creates it may send none, such as the driver of a run on an embedded model.
        import gpo.models.client  # noqa: F401

    async def request(self, path: str, body: Mapping[str, object], kind: type[_Reply], **context: object) -> _Reply:
        """Send one request and read the reply.

        Args:
            path: below ``base_url``.
            context: further context for ``kind.read``.

        Raises:
            ModelUnavailable: the request failed transiently, or the reply cannot be used.
            ModelRefused: the endpoint refused the request for good.
            ConfigError: the key, a header, the proxy or the certificates of the environment cannot be used.
        """
        sent, streamed = self.client.api_key, bool(self._streams)
        try:
            return await self._request(path, body, kind, **context)
        except ModelRefused as refusal:
            if refusal.reason is RefusalReason.KEY and await self._renew_key(sent):
                return await self._request(path, body, kind, **context)
            if _STREAMS_ONLY.search(str(refusal)) and not streamed and path == "/chat/completions":
                self._streams.append(True)
                return await self._request(path, body, kind, **context)
            raise

    async def _request(self, path: str, body: Mapping[str, object], kind: type[_Reply], **context: object) -> _Reply:
        import openai

        if self._streams:
            body = {**body, "stream": True, "stream_options": {"include_usage": True}}
        # The client's own errors are not chained, since they contain the request and with it the key.
        try:
            # The client's own time limit is per read, so a reply could arrive byte by byte without end.
            async with asyncio.timeout(self.timeout_s):
                # Not the client's typed methods: building their types takes longer than the request.
                response = await self.client.post(
                    self._root + path, cast_to=httpx2.Response, body=body, options=self._options
                )
            content = unstreamed(response.content)
            reply = kind.read(content, mask=self.redaction.reply, **context)
        except TimeoutError:
            raise ModelUnavailable(self._message(f"no reply within {self.timeout_s:g} s")) from None
        except openai.APIStatusError as error:
            response = error.response
            raise self._failure(response.status_code, response.content, response.headers, body) from None
        except openai.APIConnectionError as error:
            raise self._connection_error(error) from None
        except ValidationError as error:  # a proxy's page, a truncated body, an error sent with a status of success
            failure = self._failure(200, content, response.headers, body)
            if words_in(content):
                raise failure from None
            if not content.strip():
                raise ModelUnavailable(self._message("the reply has no content")) from None
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            message = f"the reply has an unexpected form: {where} {first['msg']}"
            raise ModelUnavailable(self._message(message), billed=self._billed(content)) from None
        except GPOError:
            raise
        except Exception as error:  # any error of the client: an unexpected reply must not end the trajectory
            message = f"the reply cannot be read ({type(error).__name__}: {error})"
            raise ModelUnavailable(self._message(message)) from None
        if isinstance(reply, ChatReply | WholeReply):
            if reply.has_failed:
                words = words_in(content) or "the endpoint does not say why"
                message = f"the model failed while it wrote the reply: {words}"
                raise ModelUnavailable(self._message(message), billed=self._billed(content))
            if reply.is_filtered:
                message = "a content filter of the endpoint ended the reply"
                raise self._refusal(self._message(message), RefusalReason.FILTER).costing(self._billed(content))
        return reply

    @cached_property
    def client(self) -> openai.AsyncOpenAI:
        """The client, with one connection pool for this endpoint.

        Raises:
            ConfigError: the key, a header, the proxy or the certificates of the environment cannot be used.
        """
        from gpo.models.client import opened_client  # takes a second

        key, *values = self._secrets
        return opened_client(
            self.base_url,
            key,
            max_connections=self.max_concurrency,
            timeout_s=self.timeout_s,
            headers=dict(zip((header.name for header in self.headers), values, strict=True)),
            query=dict(self.query),
        )

    @cached_property
    def _secrets(self) -> list[str]:
        """The key, and the values of all headers."""
        return [self.key.read(), *(header.read() for header in self.headers)]

    def require_secrets(self) -> None:
        """Read the key and the headers now rather than at the first request.

        Raises:
            ConfigError: one cannot be read; its field is an option of the endpoint's section.
        """
        _ = self._secrets

    @cached_property
    def redaction(self) -> Redaction:
        """Masks the key and the secret headers."""
        key, *values = self._secrets
        hidden = [value for header, value in zip(self.headers, values, strict=True) if header.env]
        return Redaction(*hidden, *([key] if key != NO_KEY else []))

    @property
    def key_headers(self) -> dict[str, str | openai.Omit]:
        """Headers of a request that differ from the client's own: those of a key that has a header for itself."""
        import openai

        key = self.client.api_key
        return {self.key_header: key, "Authorization": openai.Omit()} if self.key_header else {}

    @cached_property
    def _root(self) -> str:
        return str(self.client.base_url).rstrip("/")

    @cached_property
    def _options(self) -> RequestOptions:
        """Options that the client would otherwise copy or generate for each request, at a tenth of a call's cost."""
        import openai

        return {
            "headers": {
                **self.key_headers,
                "x-stainless-retry-count": openai.Omit(),
                "x-stainless-read-timeout": openai.Omit(),
            },
            "max_retries": 0,
            "timeout": self.timeout_s,
            "params": {},
            "security": {"bearer_auth": True},
            "idempotency_key": "-",  # needed only for the client's own retries; never sent
        }

    def _failure(
        self, status: int, content: bytes, headers: Mapping[str, str], body: Mapping[str, object]
    ) -> ModelUnavailable | ModelRefused:
        """The error that a failed reply is, in the endpoint's own words."""
        failure = read_failure(status, content, headers, body.keys() - {"model", "messages", "input"})
        words = failure.words or "the reply does not say why"
        message = self._message(words if status < 300 else f"HTTP {status}: {words}")
        reason = _REASONS.get(failure.kind)
        if reason is not None:
            return self._refusal(message, reason, failure.parameter)
        too_many = failure.kind is FailureKind.TOO_MANY
        return ModelUnavailable(message, 0, failure.retry_after_s, too_many=too_many, is_away=failure.is_away)

    def _billed(self, content: bytes) -> Usage | None:
        """The tokens and the cost of a reply that cannot be used, so that it counts as no answer."""
        try:
            cost = Reply.read(content).cost(self.price)
        except ValidationError:
            return None
        return replace(cost, requests=0) if cost.prompt_tokens or cost.completion_tokens else None

    async def _renew_key(self, refused: str) -> bool:
        """Read the key again, which may have been replaced; whether it differs from the refused one."""
        lock = self._renewing  # created in this thread

        def renew() -> bool:
            with lock:
                if self.client.api_key != refused:  # another request has renewed it
                    return True
                # Many requests are refused at once; one run of a command answers for all.
                if time.monotonic() - self._renewed.get(refused, float("-inf")) < _RENEWAL_PAUSE_S:
                    return False
                try:
                    key = self.key.read()
                except ConfigError:  # such as a file that is empty while it is replaced
                    return False
                self._renewed[refused] = time.monotonic()
                if key == refused:
                    return False
                # Replies may still quote the old key.
                redaction = Redaction(*self.redaction.secrets, key)
                self.__dict__["redaction"] = redaction
                self.client.api_key = key
                self.__dict__.pop("_options", None)
                return True

        return await asyncio.to_thread(renew)

    @cached_property
    def _renewing(self) -> Lock:
        return Lock()

    @cached_property
    def _renewed(self) -> dict[str, float]:
        """Refused key → when it was read again."""
        return {}

    @cached_property
    def _streams(self) -> list[bool]:
        """Not empty once the endpoint has said that it only streams."""
        return []

    def _connection_error(self, error: openai.APIConnectionError) -> ModelUnavailable | ModelRefused:
        cause = error.__cause__
        if isinstance(cause, ReplyTooLarge):  # another request would cost as much, and its reply be as large
            return self._refusal(self._message(str(cause)), RefusalReason.REQUEST)
        message = self._message(str(cause or error) or type(error).__name__)
        # A connection that breaks later does not count as away: the request itself may have crashed the endpoint.
        return ModelUnavailable(message, is_away=isinstance(cause, httpx2.ConnectError))

    def _refusal(self, message: str, reason: RefusalReason, parameter: str = "") -> ModelRefused:
        return ModelRefused(message, reason, self.model, self.base_url, self.key.location, parameter)

    def _message(self, text: str) -> str:
        """An error message in one line, without the key, which some servers repeat."""
        line = self.redaction.message(without_controls(" ".join(text.split())))
        url = re.sub(r"//[^/@]*@", "//", self.base_url)  # without a user and password
        cut = line if len(line) <= _MAX_MESSAGE_CHARACTERS else line[:_MAX_MESSAGE_CHARACTERS] + "…"
        return f"{self.model} at {url}: {cut}"
