"""Keys, tokens and passwords: addresses that must not hold any, and the values that this process knows."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from cluster.config.cache import RedisCacheConfig
from cluster.config.models import EndpointConfig
from gpo.errors import ConfigError

if TYPE_CHECKING:
    from cluster.config.root import RunConfig


def _plain(address: str) -> str:
    if not re.fullmatch(r"https?://[^\s/@?#]+(/[^\s@?#]*)?", address):
        # Not shown: a password may be in it.
        raise PydanticCustomError("address", "is not an address like http://HOST:PORT, without user or password")
    return address


HttpAddress = Annotated[str, AfterValidator(_plain)]
"""``http://`` or ``https://``, without a user, a password or a query, so that it may be shown."""


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


_SHORTEST, _SHORTEST_BY_NAME = 8, 12
"""A shorter one is a word like any other."""
_BY_NAME = re.compile(r"(?:^|_)(?:API_KEY|SECRET_ACCESS_KEY|ACCOUNT_KEY|TOKEN|SECRET|PASSWORD)$")
_VARIABLES, _URLS, _FILES = ("GPO_SERVE_TOKEN", "RAY_AUTH_TOKEN"), ("GPO_REDIS_URL",), ("RAY_AUTH_TOKEN_PATH",)


def secret_values(config: RunConfig, url_variables: tuple[str, ...] = ()) -> list[bytes]:
    """Keys, tokens and passwords, as far as they are set here: those that the configuration names, and known ones.

    Args:
        url_variables: further environment variables with addresses, which may hold a password.
    """
    variables, files, urls = list(_VARIABLES), [os.environ.get(name, "") for name in _FILES], [*_URLS, *url_variables]
    for role in ("task", "optimizer", "judge", "embedding"):
        if isinstance(endpoint := getattr(config.models, role), EndpointConfig):
            variables.append(endpoint.key.env or "")
            files.append(endpoint.key.file or "")
    if isinstance(config.cache, RedisCacheConfig):
        urls.append(config.cache.url_env)
    found = [os.environ.get(name, "") for name in variables]
    found += [content for file in files if file for content in _content(file)]
    found += [part for name in urls for part in _secret_parts(os.environ.get(name, ""))]
    by_name = [value for name, value in os.environ.items() if _BY_NAME.search(name)]
    secrets = {
        value.strip()
        for values, shortest in ((found, _SHORTEST), (by_name, _SHORTEST_BY_NAME))
        for value in values
        if len(value.strip()) >= shortest
    }
    return sorted(secret.encode(errors="surrogateescape") for secret in secrets)


def _content(file: str) -> Iterator[str]:
    with suppress(OSError, ValueError):
        yield Path(file).expanduser().read_text(encoding="utf-8")


def _secret_parts(url: str) -> Iterator[str]:
    """The password of an address, as it stands there and as it is meant; nothing of one that has none."""
    with suppress(ValueError):
        if password := urlsplit(url).password:
            yield from (url, password, unquote(password))
