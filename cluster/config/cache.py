"""Section ``cache``: where completions are kept, so that no call is paid for twice."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, Tag

from cluster.config.section import ConfigPath, OptionInfo, Section, VariableName, by_kind, require_redis_url
from gpo.cache.redis import DEFAULT_TTL_S, RedisStore
from gpo.cache.sqlite import DEFAULT_MAX_BYTES, SqliteStore
from gpo.cache.store import CompletionStore, cache_folder
from gpo.errors import ConfigError


class SqliteCacheConfig(Section):
    """A file on this machine that all runs share; on a cluster, a file per node."""

    kind: Literal["sqlite"] = "sqlite"
    path: Annotated[ConfigPath | None, OptionInfo(is_output=True)] = None
    """The file. Default: ``completions.sqlite`` in ``$XDG_CACHE_HOME/gpo`` or ``~/.cache/gpo``."""
    max_bytes: Annotated[int, Field(ge=1_000_000)] = DEFAULT_MAX_BYTES
    """Most bytes of the file; the least recently used completions are removed first."""

    def build(self) -> CompletionStore | None:
        """The store; a process opens it at its first use."""
        return SqliteStore(self.path or cache_folder() / "completions.sqlite", self.max_bytes)


class RedisCacheConfig(Section):
    """A Redis server that all nodes of a cluster share."""

    kind: Literal["redis"]
    url_env: Annotated[VariableName, OptionInfo(sensitive="url_variable")] = "GPO_REDIS_URL"
    """Environment variable with the address, such as ``redis://:password@host:6379/0``; every node needs it."""
    ttl_s: PositiveFloat = DEFAULT_TTL_S
    """Seconds for which a completion is kept after its last use. The server bounds the size: ``maxmemory`` with
    ``maxmemory-policy allkeys-lru``, or ``volatile-lru`` if it also stores other data, such as a study."""

    def build(self) -> CompletionStore | None:
        """The store; a process opens it at its first use.

        Raises:
            ConfigError: the variable is not set, or the package is not installed.
        """
        require_redis_url(self.url_env, "cache.url_env")
        if find_spec("redis") is None:
            raise ConfigError("cache.kind", "'redis' needs the package redis", "install it: pip install redis")
        return RedisStore(self.url_env, self.ttl_s)


class NoCacheConfig(Section):
    """No cache: every call is made."""

    kind: Literal["none"]

    def build(self) -> CompletionStore | None:
        """No store."""
        return None


CacheConfig = Annotated[
    Annotated[SqliteCacheConfig, Tag("sqlite")]
    | Annotated[RedisCacheConfig, Tag("redis")]
    | Annotated[NoCacheConfig, Tag("none")],
    by_kind("sqlite", "redis", "none"),
]
