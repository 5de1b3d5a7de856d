"""HTTP requests and replies within limits: heads, bodies in JSON or msgpack, and security headers.

Nothing in a request is ever executed or opened.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, NoReturn
from urllib.parse import urlsplit

import msgpack
from fastapi import HTTPException, Request, Response
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

JSON, MSGPACK = "application/json", "application/msgpack"

MAX_BODY_BYTES = 1_000_000
MAX_URL_BYTES = 8_000
MAX_HEADERS, MAX_HEADER_BYTES = 100, 32_000
"""Number of header lines, and their total size."""
BODY_TIMEOUT_S = 30.0
"""How long a client may take to send a body."""
_MAX_NESTING = 8
"""Deepest nesting of a body; a configuration has a cell of a row of ``data`` of a task of ``tasks``."""
MAX_ENTRIES = 1_000
"""Longest list or map of a msgpack body; the number of prompts is checked later, with a clearer message."""

# No reply may load anything, be embedded in a page, or be stored.
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
]


class HttpLimits:
    """ASGI middleware: refuses oversized heads, answers HEAD like GET, and adds security headers.

    Args:
        loopback_only: refuse requests whose Host header does not name this machine. Without a token, every page that a
            browser on this machine shows could otherwise send requests, under the name of the page's own host.
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
    """Whether a host name or address refers to the machine itself."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _refusal(scope: Scope, *, loopback_only: bool) -> JSONResponse | None:
    headers = scope["headers"]
    if len(headers) > MAX_HEADERS or sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES:
        return JSONResponse({"detail": "there are too many headers, or they are too large"}, 431)
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MAX_URL_BYTES:
        return JSONResponse({"detail": f"the URL is longer than {MAX_URL_BYTES} bytes"}, 414)
    if loopback_only and not is_loopback(_host(headers)):
        return JSONResponse({"detail": "without a token, the Host header must name this machine"}, 403)
    return None


def _host(headers: list[tuple[bytes, bytes]]) -> str:
    value = next((content for name, content in headers if name == b"host"), b"")
    try:
        return urlsplit(f"//{value.decode('latin-1')}").hostname or ""
    except ValueError:
        return ""


async def limited_body(request: Request, timeout_s: float = BODY_TIMEOUT_S) -> bytes:
    """The body of a request.

    Raises:
        HTTPException: 413 if it is larger than ``MAX_BODY_BYTES``, 408 if it takes longer than ``timeout_s`` seconds,
            400 if its length is not a number.
    """
    length = request.headers.get("content-length", "0")
    if not length.isdecimal():
        raise HTTPException(400, "Content-Length is not a number")
    # Compared as text first, since parsing a number with very many digits is slow.
    if len(length.lstrip("0")) > len(str(MAX_BODY_BYTES)) or int(length) > MAX_BODY_BYTES:
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


def decode(body: bytes, content_type: str, max_entries: int = MAX_ENTRIES) -> Any:
    """Parse a body.

    Args:
        max_entries: longest list of a msgpack body.

    Raises:
        HTTPException: 400 if it is invalid or nested too deeply, 415 if it is neither JSON nor msgpack.
    """
    media = content_type.partition(";")[0].strip().lower()
    try:
        if media == JSON:
            document = json.loads(body, parse_constant=_reject_constant)
        elif media == MSGPACK:
            # No field needs extension types (one of them is a date) or binary data.
            document = msgpack.unpackb(
                body,
                raw=False,
                strict_map_key=True,
                max_str_len=MAX_BODY_BYTES,
                max_bin_len=0,
                max_array_len=max_entries,
                max_map_len=MAX_ENTRIES,
                max_ext_len=0,
            )
        else:
            raise HTTPException(415, f"send {JSON} or {MSGPACK}")
    except (ValueError, RecursionError, msgpack.UnpackException):
        raise HTTPException(400, f"the body is not valid {media}") from None
    if not _is_nested_within(document, _MAX_NESTING):
        raise HTTPException(400, f"the body is nested more than {_MAX_NESTING} deep")
    return document


def encode(document: Any, accept: str) -> Response:
    """A reply as msgpack or JSON, by the request's Accept header."""
    if MSGPACK in accept:
        with suppress(OverflowError):  # a seed may have more than 64 bits
            return Response(msgpack.packb(document), media_type=MSGPACK)
    return JSONResponse(document)


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _is_nested_within(document: Any, depth: int) -> bool:
    if isinstance(document, dict):
        return depth > 0 and all(_is_nested_within(value, depth - 1) for value in document.values())
    if isinstance(document, list):
        return depth > 0 and all(_is_nested_within(value, depth - 1) for value in document)
    return True
