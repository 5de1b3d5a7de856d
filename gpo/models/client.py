"""The ``openai`` client of an endpoint.

Only what sends requests imports this module: the ``openai`` package takes a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx2
import openai

from gpo.models.bodies import ACCEPTED_ENCODINGS, bound_reply
from gpo.models.transport import AiohttpTransport, proxy_for, tls_for

_MAX_KNOWN_REQUESTS = 16
"""Requests whose beginnings are kept; they differ in the path, and in a key that was renewed."""
_NOT_SENT: Mapping[str, Any] = {
    f"X-Stainless-{name}": openai.Omit()
    for name in ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version", "Async")
}
"""Headers with which the client describes the machine. No endpoint needs them, and each costs time in each request."""


class _RequestReusingClient(openai.DefaultAsyncHttpxClient):
    """Takes URL and headers of a request from an earlier one that began alike: to parse them is a sixth of a call.

    The transport on aiohttp adds ``Content-Length``, and ignores the time limits in a request. A request with cookies
    is built anew, since they can change with every reply.
    """

    def build_request(
        self, method: str, url: Any, *, content: Any = None, headers: Any = None, **more: Any
    ) -> httpx2.Request:
        """See ``httpx2.AsyncClient.build_request``."""
        varies = self.cookies or any(more.get(name) for name in ("cookies", "params", "files", "data"))
        if varies or not isinstance(content, bytes):
            return super().build_request(method, url, content=content, headers=headers, **more)
        known: dict[Any, httpx2.Request] = self.__dict__.setdefault("_built", {})
        key = (method, url, tuple(headers or ()))
        built = known.get(key)
        if built is None:
            built = super().build_request(method, url, headers=headers, **more)
            built.headers.pop("Content-Length", None)
            if len(known) >= _MAX_KNOWN_REQUESTS:
                known.clear()
            known[key] = built
        return httpx2.Request(
            method, built.url, headers=built.headers, stream=httpx2.ByteStream(content), extensions=built.extensions
        )


def opened_client(
    base_url: str,
    key: str,
    *,
    max_connections: int,
    timeout_s: float,
    headers: Mapping[str, str],
    query: Mapping[str, object],
) -> openai.AsyncOpenAI:
    """A client with a connection pool of its own. Its first request opens connections.

    Args:
        base_url: up to and including ``/v1``.
        max_connections: at once.
        timeout_s: bound on one request, in seconds.
        headers: further headers of every request.
        query: parameters of every request's URL.

    Raises:
        ConfigError: the proxy or the certificates of the environment cannot be used.
    """
    # Proxies need the stock transport, which supports more kinds of them than aiohttp does.
    proxy, tls = proxy_for(base_url), tls_for(base_url)
    transport = None if proxy else AiohttpTransport(max_connections, tls)
    limits = httpx2.Limits(max_connections=max_connections, max_keepalive_connections=max_connections)
    http_client = openai.DefaultAsyncHttpxClient if proxy else _RequestReusingClient
    return openai.AsyncOpenAI(
        base_url=base_url,
        api_key=key,
        max_retries=0,  # see gpo.models.retrying
        timeout=timeout_s,
        default_headers={
            **_NOT_SENT,
            # The stock transport does not bound the size of what it decompresses.
            "Accept-Encoding": "identity" if proxy else ACCEPTED_ENCODINGS,
            **headers,
        },
        default_query=query,
        http_client=http_client(
            limits=limits,
            timeout=timeout_s,
            transport=transport,
            proxy=proxy,
            verify=tls,
            trust_env=False,  # only the variables for this endpoint count, which are checked
            event_hooks={"response": [bound_reply] if proxy else []},
        ),
    )
