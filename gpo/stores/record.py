"""A completion as bytes, with what it takes to notice that they are not what was written."""

from __future__ import annotations

from hashlib import blake2b

import msgpack

from gpo.models import Completion, Usage

_CHECKSUM_BYTES = 12


def encode(key: bytes, completion: Completion) -> bytes:
    """Text, ending, tokens and cost."""
    usage = completion.usage
    fields = [completion.text, completion.truncated, usage.prompt_tokens, usage.completion_tokens, usage.cost_usd]
    # A model may reply with half a surrogate pair.
    content: bytes = msgpack.packb(fields, unicode_errors="surrogatepass")
    return _checksum(key, content) + content


def decode(key: bytes, record: bytes) -> Completion | None:
    """The completion, with what it took when it was made.

    ``None`` where the bytes are damaged, of another form, or belong to another key. Earlier ones say nothing of what
    they took.
    """
    content = record[_CHECKSUM_BYTES:]
    if record[:_CHECKSUM_BYTES] != _checksum(key, content):
        return None
    try:
        text, truncated, *took = msgpack.unpackb(content, unicode_errors="surrogatepass")
        sent, generated, usd = took or (0, 0, 0.0)
    except (ValueError, TypeError):
        return None
    return Completion(text, Usage(prompt_tokens=sent, completion_tokens=generated, cost_usd=usd), truncated)


def _checksum(key: bytes, content: bytes) -> bytes:
    return blake2b(content, key=key, digest_size=_CHECKSUM_BYTES).digest()
