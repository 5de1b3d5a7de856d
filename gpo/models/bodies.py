"""Reading the body of an HTTP reply up to a bound, so that an endless reply cannot fill the memory."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterable, AsyncIterator

import httpx2

MAX_REPLY_BYTES = 8_000_000
"""Bound on a reply's body, both compressed and decompressed; about 100 times the longest plausible reply."""

ACCEPTED_ENCODINGS = "gzip, deflate"

_PLAIN, _COMPRESSED = ("", "identity"), ("gzip", "x-gzip", "deflate")
_TOO_LARGE = f"the reply is larger than {MAX_REPLY_BYTES // 1_000_000} MB"


class ReplyTooLarge(httpx2.NetworkError):
    """A reply's body is larger than ``MAX_REPLY_BYTES``."""


class ReplyUnreadable(httpx2.NetworkError):
    """A reply's body is damaged, or compressed in a way that the request does not accept."""


async def read_bounded(chunks: AsyncIterable[bytes], encoding: str, *, truncate: bool) -> bytes:
    """The decompressed body. No more than ``MAX_REPLY_BYTES`` of it are ever in memory.

    Args:
        encoding: the value of ``Content-Encoding``.
        truncate: return the beginning of a larger body instead of raising; enough for an error's page.

    Raises:
        ReplyTooLarge: the body is larger.
        ReplyUnreadable: the body cannot be decompressed.
    """
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > MAX_REPLY_BYTES:
            if not truncate:
                raise ReplyTooLarge(_TOO_LARGE)
            del body[MAX_REPLY_BYTES:]
            break
    return _decompressed(bytes(body), encoding.strip().lower(), truncate=truncate)


def _decompressed(body: bytes, encoding: str, *, truncate: bool) -> bytes:
    if encoding in _PLAIN:
        return body
    if encoding not in _COMPRESSED:
        raise ReplyUnreadable(f"the reply is compressed as {encoding[:40]!r}, which the request does not accept")
    try:
        content = _inflated(body, zlib.MAX_WBITS | 32)
    except zlib.error as error:
        if encoding != "deflate":
            raise ReplyUnreadable(f"the reply cannot be decompressed ({error})") from None
        try:  # some servers send the bare stream
            content = _inflated(body, -zlib.MAX_WBITS)
        except zlib.error:
            raise ReplyUnreadable(f"the reply cannot be decompressed ({error})") from None
    if len(content) > MAX_REPLY_BYTES and not truncate:
        raise ReplyTooLarge(_TOO_LARGE)
    return content[:MAX_REPLY_BYTES]


def _inflated(body: bytes, form: int) -> bytes:
    """The first bytes: at most one more than the bound."""
    stream = zlib.decompressobj(form)
    content = stream.decompress(body, MAX_REPLY_BYTES + 1)
    if not stream.eof and len(content) <= MAX_REPLY_BYTES:
        raise zlib.error("it is incomplete")
    return content


async def bound_reply(response: httpx2.Response) -> None:
    """Response hook for an ``httpx2`` client with its own transport: bounds the body, and reads it as UTF-8."""
    # The client would decompress each chunk completely, however large the result is.
    if response.headers.get("content-encoding", "").lower() not in _PLAIN:
        raise ReplyUnreadable("the reply is compressed, which the request does not accept")
    response.stream = _Bounded(as_utf8(response).stream)


def as_utf8(response: httpx2.Response) -> httpx2.Response:
    """The response, with its text read as UTF-8, as JSON is, whatever charset the server names.

    Some names are those of Python codecs that do not decode text, and fail in unexpected ways.
    """
    response.encoding = "utf-8"
    return response


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, stream: object) -> None:
        self._stream: httpx2.AsyncByteStream = stream  # type: ignore[assignment]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        num_bytes = 0
        async for chunk in self._stream:
            num_bytes += len(chunk)
            if num_bytes > MAX_REPLY_BYTES:
                raise ReplyTooLarge(_TOO_LARGE)
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
