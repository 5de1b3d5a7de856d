"""Addresses that hold a user name or a password, which would be stored and shown with them."""

from __future__ import annotations

import re

from gpo.errors import ConfigError

_USER = re.compile(r"://[^/?#@]*@")
_PASSWORD_WITH_SLASH = re.compile(r"://[^/?#@:]*:(?!\d*(/|$))[^@]*@")
_CONTAINER = re.compile(r"abfss?://[^/?#@:]+@")
"""Not a user: in Azure's addresses, a container stands there."""

PROBLEM = "holds a user name or password"
IN_ENVIRONMENT = (
    "leave it out, and set what fsspec or the store's client reads from the environment, such as FSSPEC_FTP_PASSWORD "
    "or AWS_SECRET_ACCESS_KEY"
)


def holds_credentials(address: str) -> bool:
    """Whether a URL has a user name or password before its host; a plain path or ``HOST:PORT`` has none."""
    rest = _CONTAINER.sub("://", address)
    return bool(_USER.search(rest) or _PASSWORD_WITH_SLASH.search(rest))


def refuse_credentials(field: str, address: str, remedy: str = IN_ENVIRONMENT) -> None:
    """Refuse such an address.

    Raises:
        ConfigError: it has one, and is not shown.
    """
    if holds_credentials(address):
        raise ConfigError(field, PROBLEM, remedy)
