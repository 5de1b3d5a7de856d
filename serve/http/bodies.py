"""Bodies of HTTP requests and replies: JSON or msgpack, read within limits. Nothing in them is ever run or opened."""

from __future__ import annotations

import json
from typing import Any, NoReturn

import msgpack
from fastapi import HTTPException, Response
from fastapi.responses import JSONResponse

from serve.http.limits import MAX_BODY_BYTES

JSON, MSGPACK = "application/json", "application/msgpack"

_MAX_NESTING = 8
"""A request has a list in a map; the deepest that is read."""
_MAX_ENTRIES = 1_000
"""Of a list or a map; how many prompts there may be is checked afterwards, with a message that says so."""


def decoded(body: bytes, content_type: str) -> Any:
    """The document in a body.

    Raises:
        HTTPException: 400, it is not valid, or nested too deeply; 415, it is neither JSON nor msgpack.
    """
    media = content_type.partition(";")[0].strip().lower()
    try:
        if media == JSON:
            document = json.loads(body, parse_constant=_no_number)
        elif media == MSGPACK:
            # No extension types, of which one would be a date; no binary, which no field takes.
            document = msgpack.unpackb(
                body,
                raw=False,
                strict_map_key=True,
                max_str_len=MAX_BODY_BYTES,
                max_bin_len=0,
                max_array_len=_MAX_ENTRIES,
                max_map_len=_MAX_ENTRIES,
                max_ext_len=0,
            )
        else:
            raise HTTPException(415, f"send {JSON} or {MSGPACK}")
    except (ValueError, RecursionError, msgpack.UnpackException):
        raise HTTPException(400, f"the body is not valid {media}") from None
    if not _is_flat(document, _MAX_NESTING):
        raise HTTPException(400, f"the body is nested more than {_MAX_NESTING} deep")
    return document


def encoded(document: Any, accept: str) -> Response:
    """A reply in the form that was asked for."""
    if MSGPACK in accept:
        return Response(msgpack.packb(document), media_type=MSGPACK)
    return JSONResponse(document)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _is_flat(document: Any, depth: int) -> bool:
    if isinstance(document, dict):
        return depth > 0 and all(_is_flat(value, depth - 1) for value in document.values())
    if isinstance(document, list):
        return depth > 0 and all(_is_flat(value, depth - 1) for value in document)
    return True
