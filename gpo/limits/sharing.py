"""Divides the limits of an endpoint among clusters, through a Redis server that all of them reach.

Each cluster that calls an endpoint holds a lease on it, and all clusters with a lease have equal parts of the limits. A
cluster that joins or leaves changes the parts of the others within two seconds, and one that dies after ten. A cluster
that joins others has the smallest part for these two seconds, so that the clusters do not exceed the limits together.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Protocol
from uuid import uuid4

from gpo.limits.messages import LEASE_S, Report

log = logging.getLogger(__name__)

_EVERY_S = 2.0
_TIMEOUT_S = 5.0
_MANY = 1_000_000
"""Clusters that leave one request at a time to each of them."""
_RENEW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], 2 * ARGV[2])
return redis.call('ZCARD', KEYS[1])
"""
"""Renew a lease; the number of leases. The server's clock counts, since the machines' clocks may differ."""


class Divisible(Protocol):
    """A limiter whose limits can be divided."""

    def uses(self, endpoint: str) -> bool:
        """Whether a gate sends requests to the endpoint."""
        ...

    def divide(self, endpoint: str, clusters: int) -> None:
        """Use one of so many equal parts of the endpoint's limits."""
        ...


class SharedLimits:
    """The leases of one cluster. Use it in one event loop.

    While the server cannot be reached, the parts stay as they are; a cluster that cannot join uses the whole limits.

    Args:
        connect: opens a client of the server whose address is in an environment variable.
    """

    def __init__(self, limiter: Divisible, connect: Callable[[str], Any] | None = None) -> None:
        self._limiter, self._connect = limiter, connect or _client
        self._member = uuid4().hex
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def take(self, report: Report) -> None:
        """Begin to share the limits of the endpoint that a gate reports about, if the gate asks for it."""
        endpoint, url_env = report.pool.endpoint, report.pool.shared_env
        if url_env and not report.leaving and endpoint not in self._tasks:
            self._limiter.divide(endpoint, _MANY)
            self._tasks[endpoint] = asyncio.create_task(self._share(endpoint, url_env))

    async def _share(self, endpoint: str, url_env: str) -> None:
        key, is_new, is_away, client = lease_key(endpoint), True, False, None
        try:
            while True:
                try:
                    client = client or self._connect(url_env)
                    clusters = await client.eval(_RENEW, 1, key, self._member, round(LEASE_S * 1000))
                except Exception as error:  # the client has many kinds of errors
                    if not is_away:  # not the error's text, which may quote the address and with it the password
                        kind = type(error).__name__
                        log.warning("limits are not shared: the server at $%s cannot be used (%s)", url_env, kind)
                    is_away = True
                    if is_new:
                        self._limiter.divide(endpoint, 1)
                else:
                    is_away = False
                    if not is_new or clusters == 1:  # others make room within this round
                        self._limiter.divide(endpoint, int(clusters))
                is_new = False
                await asyncio.sleep(_EVERY_S)
                if not self._limiter.uses(endpoint):
                    break
            if client is not None and not is_away:
                await client.zrem(key, self._member)
        except Exception as error:
            log.info("a lease on the limits was not given back: %s", type(error).__name__)
        finally:
            del self._tasks[endpoint]
            if client is not None:
                await client.aclose()


def lease_key(endpoint: str) -> str:
    """The name of the sorted set with the leases on an endpoint."""
    return f"gpo:limits:1:{blake2b(endpoint.encode(), digest_size=16).hexdigest()}"


def _client(url_env: str) -> Any:
    import redis.asyncio

    return redis.asyncio.from_url(os.environ[url_env], socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S)
