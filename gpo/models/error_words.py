"""What an endpoint says in the body of a failed request, whatever form the body has."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from typing import Any

_MAX_BYTES, _MAX_DEPTH = 1_000_000, 6
_SPEAKING = ("message", "detail", "error", "errors", "error_message", "msg", "reason", "description", "title", "raw")
"""Fields that hold the words, the most telling first."""
_HOLDING = ("metadata", "innererror", "inner_error", "body", "response", "data", "fault", "status")
"""Fields below which there may be more."""
_CODES = ("code", "type", "error_code", "status")
_UNSEEN = re.compile(r"<(script|style|head)\b.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<!--.*?-->|<[!/?]?[a-zA-Z][^>]*>", re.DOTALL)


def words_in(body: bytes | str) -> str:
    """The endpoint's own words in one line, each sentence once, without HTML tags; empty where it says nothing."""
    text = (body if isinstance(body, str) else body[:_MAX_BYTES].decode("utf-8-sig", errors="replace")).strip()
    document = _json(text)
    if document is None:
        return _plain(text)
    found: list[str] = []
    for words in _words(document, 0):
        plain = _plain(words)
        if plain and not any(plain in other for other in found):
            found = [other for other in found if other not in plain] + [plain]
    return ": ".join(found)


def codes_in(body: bytes | str) -> frozenset[str]:
    """Every error code and error type in the body, in lower case: ``insufficient_quota``, ``content_filter``, ..."""
    text = (body if isinstance(body, str) else body[:_MAX_BYTES].decode("utf-8-sig", errors="replace")).strip()
    return frozenset(_codes(_json(text), 0))


def _json(text: str) -> Any:
    if not text.startswith(("{", "[", '"')):
        return None
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None


def _words(value: Any, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, str):
        inner = _json(value.strip())
        if isinstance(inner, (dict, list)):
            yield from _words(inner, depth + 1)
        else:
            yield value
    elif isinstance(value, list):
        for item in value[:3]:
            yield from _words(item, depth + 1)
    elif isinstance(value, dict):
        for name in (*_SPEAKING, *_HOLDING):
            if name in _HOLDING and isinstance(value.get(name), str):
                continue
            if name == "msg" and isinstance(value.get("loc"), list):
                yield f"{'.'.join(map(str, value['loc']))}: {value['msg']}"
            else:
                yield from _words(value.get(name), depth + 1)


def _codes(value: Any, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, list):
        for item in value[:3]:
            yield from _codes(item, depth + 1)
    elif isinstance(value, dict):
        for name in _CODES:
            if isinstance(value.get(name), (str, int)) and not isinstance(value[name], bool):
                yield str(value[name]).lower()
        for item in value.values():
            yield from _codes(item, depth + 1)


def _plain(text: str) -> str:
    """In one line, without tags; of a whole page, its title and what a reader would see of it."""
    if _TAG.search(text):
        title = _TITLE.search(text)
        seen = _TAG.sub(" ", _UNSEEN.sub(" ", text))
        text = f"{title[1]} {seen}" if title and title[1].strip() not in seen else seen
    return " ".join(html.unescape(text).split())
