"""The secrets that this process knows, to look for where none may be."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cluster.config import RunConfig
from cluster.config.cache import RedisCacheConfig
from cluster.config.models import EndpointConfig

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
