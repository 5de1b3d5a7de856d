"""A completion as bytes, with what it takes to notice that they are not what was written."""

from __future__ import annotations

from hashlib import blake2b

import msgpack

from gpo.models import Completion, Usage

_CHECKSUM_BYTES = 12


def encode(key: bytes, completion: Completion) -> bytes:
    """Text and ending, without what it cost."""
    # A model may reply with half a surrogate pair.
    content: bytes = msgpack.packb([completion.text, completion.truncated], unicode_errors="surrogatepass")
    return _checksum(key, content) + content


def decode(key: bytes, record: bytes) -> Completion | None:
    """The completion; ``None`` where the bytes are damaged, of another form, or belong to another key."""
    content = record[_CHECKSUM_BYTES:]
    if record[:_CHECKSUM_BYTES] != _checksum(key, content):
        return None
    try:
        text, truncated = msgpack.unpackb(content, unicode_errors="surrogatepass")
    except (ValueError, TypeError):
        return None
    return Completion(text, Usage(), truncated)


def _checksum(key: bytes, content: bytes) -> bytes:
    return blake2b(content, key=key, digest_size=_CHECKSUM_BYTES).digest()
