"""Addresses of services that a run tells of itself."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError


def _plain(address: str) -> str:
    if not re.fullmatch(r"https?://[^\s/@?#]+(/[^\s@?#]*)?", address):
        # Not shown: a password may be in it.
        raise PydanticCustomError("address", "is not an address like http://HOST:PORT, without user or password")
    return address


HttpAddress = Annotated[str, AfterValidator(_plain)]
"""``http://`` or ``https://``, without a user, a password or a query, so that it may be shown."""
