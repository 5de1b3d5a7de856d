"""Carries the requests of an ``httpx2`` client over aiohttp, which takes less of the processor's time.

The ``openai`` package has such a transport too, but lets some of aiohttp's errors through, which hold the key, and
leaves it to its user to close connections. ``python -m benchmarks.client`` compares what they cost.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx2

from gpo.models.bodies import as_utf8, read_bounded

_KEEP_ALIVE_S = 4.0
"""Shorter than the 5 s after which many servers close an idle connection, so that none is closed while it is taken."""

_HEADER_BYTES = 65536
"""Longest header line that is understood; some gateways send more than aiohttp's usual 8 KB."""


_OF_PACKED_BODY = (b"content-encoding", b"content-length", b"transfer-encoding")


class AiohttpTransport(httpx2.AsyncBaseTransport):
    """One pool of connections, which opens with the first request and closes with the event loop at the latest.

    It knows no proxies and sets no time limit: whoever sends a request bounds it. A request that is cancelled ends at
    once, with its connection. In another event loop, the next request opens another pool.

    Args:
        max_connections: at once; further requests wait for one.
    """

    def __init__(self, max_connections: int) -> None:
        self._max_connections = max_connections
        self._loop: asyncio.AbstractEventLoop | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """The whole reply, whatever its status; bodies are read at once, unpacked, and no further than a bound.

        Raises:
            ReplyTooLarge: the body of what calls itself a success is larger than that.
            httpx2.NetworkError: no connection, it broke, or what came is not HTTP. Says so without the request's
                headers, and is not chained to aiohttp's error, which holds them.
        """
        if self._loop is not asyncio.get_running_loop():
            await self._open()
        url = request.url
        # Without the user and password that a URL may hold: they are in a header by now.
        target = f"{url.scheme}://{url.netloc.decode()}{url.raw_path.decode()}"
        try:
            async with self._session.request(
                request.method,
                target,
                headers=request.headers.multi_items(),
                data=await request.aread() or None,
                allow_redirects=False,
            ) as reply:
                packing = reply.headers.get("Content-Encoding", "")
                body = await read_bounded(reply.content.iter_any(), packing, cut=reply.status >= 400)
        except aiohttp.ClientConnectorError as error:
            raise httpx2.ConnectError(str(error), request=request) from None
        except (aiohttp.ClientError, OSError) as error:
            raise httpx2.NetworkError(str(error) or type(error).__name__, request=request) from None
        headers = [(name, value) for name, value in reply.raw_headers if name.lower() not in _OF_PACKED_BODY]
        return as_utf8(httpx2.Response(reply.status, headers=headers, content=body, request=request))

    async def _open(self) -> None:
        # No other task runs in between: a session opens without waiting.
        self._lifetime = _session(self._max_connections)
        self._session = await anext(self._lifetime)
        self._loop = asyncio.get_running_loop()
        weakref.finalize(self, _close, self._lifetime, self._loop).atexit = False

    async def aclose(self) -> None:
        """Close all connections."""
        if self._loop is not None:
            await self._lifetime.aclose()


# Nobody closes the clients that models hold, and aiohttp complains of every session that is dropped open. So a session
# lives in a generator: an event loop that ends closes those it has begun. A transport that is dropped before has its
# generator closed by a finalizer, which also keeps the session from being collected along with it.


async def _session(max_connections: int) -> AsyncGenerator[aiohttp.ClientSession]:
    tls = httpx2.create_ssl_context()
    tls.set_alpn_protocols(["http/1.1"])
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=max_connections, keepalive_timeout=_KEEP_ALIVE_S, ssl=tls),
        # The client above keeps cookies; bodies are unpacked by us, who bound what comes out.
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        max_line_size=_HEADER_BYTES,
        max_field_size=_HEADER_BYTES,
    ) as session:
        yield session


def _close(lifetime: AsyncGenerator[aiohttp.ClientSession], loop: asyncio.AbstractEventLoop) -> None:
    if not loop.is_closed():
        asyncio.run_coroutine_threadsafe(lifetime.aclose(), loop)


def is_proxied(url: str) -> bool:
    """Whether the environment names a proxy for this URL (``HTTPS_PROXY``, ``ALL_PROXY`` …, but for ``NO_PROXY``)."""
    parts, proxies = urlsplit(url), getproxies()
    return bool({parts.scheme, "all"} & proxies.keys()) and not proxy_bypass(parts.netloc.rpartition("@")[2])
