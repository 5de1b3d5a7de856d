"""Taking a secret out of what others say."""

from __future__ import annotations

import html
import json
import re
from urllib.parse import quote

MASK = "***"

_SHORTEST_IN_MESSAGES = 6
_SHORTEST_IN_REPLIES = 12
"""A shorter secret is a word like any other: taking it out would change what is said."""


class Redaction:
    """Masks a secret wherever it stands: as it is, or as JSON, Python, HTML or a URL would write it.

    Args:
        secret: printable ASCII.
    """

    def __init__(self, secret: str) -> None:
        forms = {secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], quote(secret, safe=""), quote(secret)}
        forms |= {html.escape(secret), html.escape(secret, quote=False)}
        # JSON inside JSON, as where a gateway quotes what the server behind it said.
        forms.add(json.dumps(json.dumps(secret))[3:-3])
        # The longest first: one may hold another.
        pattern = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
        self._in_text = re.compile(pattern) if len(secret) >= _SHORTEST_IN_MESSAGES else None
        self._in_bytes = re.compile(pattern.encode()) if len(secret) >= _SHORTEST_IN_REPLIES else None

    def message(self, text: str) -> str:
        """An error message without the secret."""
        return self._in_text.sub(MASK, text) if self._in_text is not None else text

    def body(self, content: bytes) -> bytes:
        """The body of a reply without the secret; a secret that may be a mere word, of below 12 characters, stays."""
        if self._in_bytes is None or self._in_bytes.search(content) is None:
            return content
        return self._in_bytes.sub(MASK.encode(), content)
