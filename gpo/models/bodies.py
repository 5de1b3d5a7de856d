"""The body of an HTTP reply, read no further than a bound: a reply without end must not fill the memory."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterable, AsyncIterator

import httpx2

MAX_REPLY_BYTES = 8_000_000
"""Bound on a reply's body, packed and unpacked: some hundred times the longest that makes sense."""

PACKINGS = "gzip, deflate"
"""What is asked for, and understood."""

_PLAIN, _PACKED = ("", "identity"), ("gzip", "x-gzip", "deflate")


class ReplyTooLarge(httpx2.NetworkError):
    """A reply's body is larger than ``MAX_REPLY_BYTES``."""


class ReplyUnreadable(httpx2.NetworkError):
    """A reply's body is packed in a way that was not asked for, or is damaged."""


async def read_bounded(chunks: AsyncIterable[bytes], packing: str, *, cut: bool) -> bytes:
    """The whole body, unpacked.

    Args:
        packing: the value of ``Content-Encoding``.
        cut: give what fits where there is more, rather than fail: of an error's page, the beginning will do.

    Raises:
        ReplyTooLarge: there is more; no more than the bound was held in memory, packed or unpacked.
        ReplyUnreadable: it cannot be unpacked.
    """
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > MAX_REPLY_BYTES:
            if not cut:
                raise ReplyTooLarge(_TOO_LARGE)
            del body[MAX_REPLY_BYTES:]
            break
    return _unpacked(bytes(body), packing.strip().lower(), cut=cut)


_TOO_LARGE = f"the reply is larger than {MAX_REPLY_BYTES // 1_000_000} MB"


def _unpacked(body: bytes, packing: str, *, cut: bool) -> bytes:
    if packing in _PLAIN:
        return body
    if packing not in _PACKED:
        raise ReplyUnreadable(f"the reply is packed as {packing[:40]!r}, which was not asked for")
    try:
        unpacked = _inflated(body, zlib.MAX_WBITS | 32)
    except zlib.error as error:
        if packing != "deflate":
            raise ReplyUnreadable(f"the reply cannot be unpacked ({error})") from None
        try:  # some servers mean by that the bare stream
            unpacked = _inflated(body, -zlib.MAX_WBITS)
        except zlib.error:
            raise ReplyUnreadable(f"the reply cannot be unpacked ({error})") from None
    if len(unpacked) > MAX_REPLY_BYTES and not cut:
        raise ReplyTooLarge(_TOO_LARGE)
    return unpacked[:MAX_REPLY_BYTES]


def _inflated(body: bytes, form: int) -> bytes:
    """The first bytes, one more than the bound at most."""
    stream = zlib.decompressobj(form)
    unpacked = stream.decompress(body, MAX_REPLY_BYTES + 1)
    if not stream.eof and len(unpacked) <= MAX_REPLY_BYTES:
        raise zlib.error("it is cut")
    return unpacked


async def bound_reply(response: httpx2.Response) -> None:
    """A hook of an ``httpx2`` client whose transport is not ours: bounds what it will read, as UTF-8."""
    # It would unpack each piece whole, however much a piece of packed zeros holds.
    if response.headers.get("content-encoding", "").lower() not in _PLAIN:
        raise ReplyUnreadable("the reply is packed, which was not asked for")
    response.stream = _Bounded(as_utf8(response).stream)


def as_utf8(response: httpx2.Response) -> httpx2.Response:
    """The response, whose text is read as UTF-8, like JSON, whatever charset it names.

    The name is the server's: some are Python's codecs for other things than text, and fail in ways of their own.
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
