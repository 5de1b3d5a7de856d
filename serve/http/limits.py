"""What holds for every HTTP request before it is looked at: how much of it there may be, and how it is answered."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from urllib.parse import urlsplit

from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 1_000_000
MAX_URL_BYTES = 8_000
MAX_HEADERS, MAX_HEADER_BYTES = 100, 32_000
"""Number of header lines, and bytes in all of them together."""
BODY_TIMEOUT_S = 30.0
"""What a client gets to send a body, however it drips."""

# Nothing here is a page that may load or be loaded, and none of it is worth keeping.
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
]


class HttpLimits:
    """An ASGI application before another: refuses oversized heads, answers HEAD as GET, and adds headers.

    Args:
        loopback_only: refuse requests that do not name this machine. Without a token, whoever can connect is let in,
            and a browser on this machine can be made to connect by any page that it shows, under that page's name.
    """

    def __init__(self, app: ASGIApp, loopback_only: bool = False) -> None:
        self._app = app
        self._loopback_only = loopback_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_head = scope["method"] == "HEAD"

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *_HEADERS]}
            elif is_head:
                message = {**message, "body": b""}
            await send(message)

        refusal = _refusal(scope, loopback_only=self._loopback_only)
        if refusal is not None:
            await refusal(scope, receive, answer)
            return
        await self._app({**scope, "method": "GET"} if is_head else scope, receive, answer)


def is_loopback(host: str) -> bool:
    """Whether a name or address is one by which a machine reaches itself."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _refusal(scope: Scope, *, loopback_only: bool) -> JSONResponse | None:
    headers = scope["headers"]
    if len(headers) > MAX_HEADERS or sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES:
        return JSONResponse({"detail": "the headers are too many or too large"}, 431)
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MAX_URL_BYTES:
        return JSONResponse({"detail": f"the URL is longer than {MAX_URL_BYTES} bytes"}, 414)
    if loopback_only and not is_loopback(_host(headers)):
        return JSONResponse({"detail": "without a token, only this machine itself may be named as the host"}, 403)
    return None


def _host(headers: list[tuple[bytes, bytes]]) -> str:
    named = next((value for name, value in headers if name == b"host"), b"")
    try:
        return urlsplit(f"//{named.decode('latin-1')}").hostname or ""
    except ValueError:
        return ""


async def limited_body(request: Request, timeout_s: float = BODY_TIMEOUT_S) -> bytes:
    """The body of a request.

    Raises:
        HTTPException: 413, it is larger than ``MAX_BODY_BYTES``; 408, it took longer than ``timeout_s`` seconds; 400,
            its length is no number.
    """
    said = request.headers.get("content-length", "0")
    if not said.isdecimal():
        raise HTTPException(400, "Content-Length is not a number")
    # As text, since a number of any length may stand there.
    if len(said.lstrip("0")) > len(str(MAX_BODY_BYTES)) or int(said) > MAX_BODY_BYTES:
        raise _too_large()
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise _too_large()
    except TimeoutError:
        raise HTTPException(408, f"the body did not arrive within {timeout_s:g} s") from None
    return bytes(body)


def _too_large() -> HTTPException:
    return HTTPException(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
