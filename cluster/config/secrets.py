"""Keys, tokens and passwords: addresses that must not hold any, and the values that this process knows."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator

from cluster.config.section import Section, options, unfit
from gpo.errors import ConfigError

# -- addresses without credentials ------------------------------------------------------------------------------------

PROBLEM = "holds a user name or password"
IN_ENVIRONMENT = (
    "leave it out, and set what fsspec or the store's client reads from the environment, such as FSSPEC_FTP_PASSWORD "
    "or AWS_SECRET_ACCESS_KEY"
)
_USER = re.compile(r"://[^/?#@]*@")
_PASSWORD_WITH_SLASH = re.compile(r"://[^/?#@:]*:(?!\d*(/|$))[^@]*@")
_CONTAINER = re.compile(r"abfss?://[^/?#@:]+@")
"""Azure's addresses have a container before the ``@``, not a user."""


def _plain(address: str) -> str:
    if not re.fullmatch(r"https?://[^\s/@?#]+(/[^\s@?#]*)?", address):
        # Not shown: it may hold a password.
        raise unfit("is not an address like http://HOST:PORT, without user or password")
    return address


HttpAddress = Annotated[str, AfterValidator(_plain)]
"""``http://`` or ``https://``, without a user, a password or a query, so that it may be shown."""


def holds_credentials(address: str) -> bool:
    """Whether a URL has a user name or password before its host; a plain path or ``HOST:PORT`` has none."""
    rest = _CONTAINER.sub("://", address)
    return bool(_USER.search(rest) or _PASSWORD_WITH_SLASH.search(rest))


def refuse_credentials(field: str, address: str, remedy: str = IN_ENVIRONMENT) -> None:
    """Refuse an address with a user name or password, since it would be stored and shown.

    Raises:
        ConfigError: it holds one; the address is not shown.
    """
    if holds_credentials(address):
        raise ConfigError(field, PROBLEM, remedy)


# -- known secrets ----------------------------------------------------------------------------------------------------

_MIN_LENGTH, _MIN_LENGTH_BY_NAME = 8, 12
"""A shorter value may be an ordinary word."""
_BY_NAME = re.compile(r"(?:^|_)(?:API_KEY|SECRET_ACCESS_KEY|ACCOUNT_KEY|TOKEN|SECRET|PASSWORD)$")
_VARIABLES, _URL_VARIABLES = ("OPENAI_API_KEY", "GPO_SERVE_TOKEN", "RAY_AUTH_TOKEN"), ("GPO_REDIS_URL",)


def secret_values(*sections: Section) -> list[bytes]:
    """The keys, tokens and passwords that this process can read: those that the sections name, and well-known ones."""
    named: dict[str, list[str]] = {"variable": list(_VARIABLES), "url_variable": list(_URL_VARIABLES), "file": []}
    for section in sections:
        for _, info, value in options(section):
            if info.sensitive in named and value is not None:
                named[info.sensitive].append(str(value))
    files = [*named["file"], os.environ.get("RAY_AUTH_TOKEN_PATH", "")]
    found = [os.environ.get(name, "") for name in named["variable"]]
    found += [content for file in files if file for content in _content(file)]
    found += [part for name in named["url_variable"] for part in _secret_parts(os.environ.get(name, ""))]
    by_name = [value for name, value in os.environ.items() if _BY_NAME.search(name)]
    secrets = {
        value.strip()
        for values, min_length in ((found, _MIN_LENGTH), (by_name, _MIN_LENGTH_BY_NAME))
        for value in values
        if len(value.strip()) >= min_length
    }
    return sorted(secret.encode(errors="surrogateescape") for secret in secrets)


def _content(file: str) -> Iterator[str]:
    with suppress(OSError, ValueError):
        yield Path(file).expanduser().read_text(encoding="utf-8")


def _secret_parts(url: str) -> Iterator[str]:
    """An address with a password, and the password as written and decoded; nothing where there is no password."""
    with suppress(ValueError):
        if password := urlsplit(url).password:
            yield from (url, password, unquote(password))
