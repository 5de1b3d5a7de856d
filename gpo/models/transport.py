"""A transport that sends the requests of an ``httpx2`` client with aiohttp, which needs less CPU time.

The ``openai`` package has such a transport too, but it passes on some of aiohttp's errors, which contain the key, and
requires its user to close connections. ``python -m benchmarks.client`` compares their costs.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import weakref
from collections.abc import AsyncGenerator
from errno import ENOTDIR
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx2

from gpo.errors import ConfigError
from gpo.models.bodies import as_utf8, read_bounded

_KEEP_ALIVE_S = 4.0
"""Shorter than the 5 s after which many servers close idle connections, so that none is closed while it is reused."""

_HEADER_BYTES = 65536
"""Longest header line; some gateways send more than aiohttp's default of 8 KB."""

_COMPRESSED_BODY_HEADERS = (b"content-encoding", b"content-length", b"transfer-encoding")


class AiohttpTransport(httpx2.AsyncBaseTransport):
    """A pool of connections, which opens with the first request and closes with the event loop at the latest.

    It supports no proxies and sets no time limit, which is the caller's task. Cancelling a request closes its
    connection. In another event loop, the next request opens another pool.

    Args:
        max_connections: at once; further requests wait.
        tls: how certificates are checked.
    """

    def __init__(self, max_connections: int, tls: ssl.SSLContext) -> None:
        self._max_connections, self._tls = max_connections, tls
        tls.set_alpn_protocols(["http/1.1"])
        self._loop: asyncio.AbstractEventLoop | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """The reply with its whole body, decompressed, whatever its status.

        Raises:
            ReplyTooLarge: the body of a successful reply exceeds the bound.
            httpx2.NetworkError: the connection failed, or the reply is not HTTP. The error does not contain the
                request's headers, and is not chained to aiohttp's error, which does.
        """
        if self._loop is not asyncio.get_running_loop():
            await self._open()
        url = request.url
        # Without a user and password in the URL; the client has put them into a header.
        target = f"{url.scheme}://{url.netloc.decode()}{url.raw_path.decode()}"
        try:
            async with self._session.request(
                request.method,
                target,
                headers=request.headers.multi_items(),
                data=await request.aread() or None,
                allow_redirects=False,
            ) as reply:
                encoding = reply.headers.get("Content-Encoding", "")
                body = await read_bounded(reply.content.iter_any(), encoding, truncate=reply.status >= 400)
        except aiohttp.ClientConnectorError as error:
            raise httpx2.ConnectError(str(error), request=request) from None
        except (aiohttp.ClientError, OSError) as error:
            raise httpx2.NetworkError(str(error) or type(error).__name__, request=request) from None
        headers = [(name, value) for name, value in reply.raw_headers if name.lower() not in _COMPRESSED_BODY_HEADERS]
        return as_utf8(httpx2.Response(reply.status, headers=headers, content=body, request=request))

    async def _open(self) -> None:
        # Opening a session does not wait, so no other task runs meanwhile.
        self._lifetime = _session(self._max_connections, self._tls)
        self._session = await anext(self._lifetime)
        self._loop = asyncio.get_running_loop()
        weakref.finalize(self, _close, self._lifetime, self._loop).atexit = False

    async def aclose(self) -> None:
        """Close all connections."""
        if self._loop is not None:
            await self._lifetime.aclose()


# Nothing closes the clients of models, and aiohttp warns about every session that is garbage-collected while open. So a
# session lives in an asynchronous generator, which the event loop closes when it ends. If the transport is collected
# before, a finalizer closes the generator; its reference also prevents that the session is collected first.


async def _session(max_connections: int, tls: ssl.SSLContext) -> AsyncGenerator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=max_connections, keepalive_timeout=_KEEP_ALIVE_S, ssl=tls),
        # The httpx2 client keeps cookies; ``read_bounded`` decompresses.
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


# -- proxies and certificates of the environment ----------------------------------------------------------------------

_PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")


def proxy_for(url: str) -> str | None:
    """The proxy for a URL, in ``HTTPS_PROXY``, ``HTTP_PROXY`` or ``ALL_PROXY``; ``None`` if ``NO_PROXY`` covers it.

    A URL on the loopback interface needs no proxy, whatever the variables say.

    Raises:
        ConfigError: the proxy cannot be used; names the variable, and shows no password.
    """
    parts, proxies = urlsplit(url), getproxies()
    scheme = next((scheme for scheme in (parts.scheme, "all") if proxies.get(scheme)), None)
    if scheme is None or _is_loopback(parts.hostname or "") or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    names = (f"{scheme}_proxy", f"{scheme}_proxy".upper())
    variable = next((name for name in names if os.environ.get(name) == proxies[scheme]), names[1])
    proxy = proxies[scheme] if "://" in proxies[scheme] else f"http://{proxies[scheme]}"
    exempt = "correct or unset it, or name the endpoint's host in NO_PROXY"
    try:
        address = urlsplit(proxy)
        _, is_usable = httpx2.URL(proxy), bool(address.hostname) and address.port != 0
    except (ValueError, httpx2.InvalidURL):
        is_usable = False
    if not is_usable:
        raise ConfigError(variable, "is not the address of a proxy, such as http://HOST:PORT", exempt)
    if address.scheme.lower() not in _PROXY_SCHEMES:
        problem = f"names a proxy of kind {address.scheme!r}, which is none of {', '.join(_PROXY_SCHEMES)}"
        raise ConfigError(variable, problem, exempt)
    if address.scheme.lower().startswith("socks") and find_spec("socksio") is None:
        raise ConfigError(
            variable, "names a SOCKS proxy, which needs the package socksio", f"pip install socksio; or {exempt}"
        )
    return proxy


def tls_for(url: str) -> ssl.SSLContext:
    """How a URL's certificate is checked.

    ``SSL_CERT_FILE``, ``SSL_CERT_DIR`` or ``REQUESTS_CA_BUNDLE`` replaces the system's certificates, in this order.

    Raises:
        ConfigError: a variable names certificates that cannot be used, and the URL needs some.
    """
    variable = next((name for name in _CERTIFICATES if os.environ.get(name)), None)
    if variable is None:
        return httpx2.create_ssl_context(trust_env=False)
    path = Path(os.environ[variable])
    try:
        if variable == "SSL_CERT_FILE" or path.is_file():
            return ssl.create_default_context(cafile=path)
        path.stat()
        if not path.is_dir():
            raise NotADirectoryError(ENOTDIR, os.strerror(ENOTDIR))
        return ssl.create_default_context(capath=path)
    except OSError as error:  # SSLError is one
        if urlsplit(url).scheme != "https":
            return httpx2.create_ssl_context(trust_env=False)
        reason = "it holds no certificates" if isinstance(error, ssl.SSLError) else error.strerror
        problem = f"names {str(path)!r}, which cannot be used ({reason})"
        raise ConfigError(variable, problem, "name a file of certificates in PEM format, or unset it") from None


def _is_loopback(host: str) -> bool:
    try:
        return host.lower() == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
