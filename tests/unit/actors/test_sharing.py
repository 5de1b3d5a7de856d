from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from actors.limiter import SharedLimiter
from gpo.limits import sharing
from gpo.limits.limiter_state import LimiterState
from gpo.limits.messages import Pool, Report
from gpo.limits.sharing import lease_key
from tests.servers import redis_server
from tests.unit.gpo.limits.test_limiter import Clock, Holder

POOL = Pool("http://here/v1", "model", 32, 32, requests_per_min=600, tokens_per_min=60_000, shared_env="SHARED_URL")


def test_a_limiter_uses_its_part_of_concurrency_and_rates() -> None:
    clock = Clock()
    limiter = LimiterState(clock)
    holder = Holder(limiter, "a", POOL)
    holder.reports(demand=100, permits_wanted=100, tokens_each=1.0)
    grant = holder.receives()
    assert grant is not None
    assert (grant.slots, grant.permits) == (32, 10)  # a second's worth of 600 a minute
    assert limiter.divide(POOL.endpoint, 3)
    assert not limiter.divide(POOL.endpoint, 3)
    clock.now += 60
    holder.reports(demand=100, permits_wanted=100, tokens_each=1.0, slots=32)
    grant = holder.receives()
    assert grant is not None
    assert (grant.slots, grant.permits) == (10, 3)
    limiter.divide(POOL.endpoint, 1000)
    clock.now += 60
    holder.reports(demand=100, slots=10)
    grant = holder.receives()
    assert grant is not None
    assert grant.slots == 1, "a cluster is never stopped"
    limiter.divide(POOL.endpoint, 1)
    holder.reports(demand=100, slots=1)
    assert (holder.receives() or grant).slots == 32


def test_other_endpoints_keep_their_limits() -> None:
    limiter = LimiterState(Clock())
    limiter.divide(POOL.endpoint, 4)
    other = Holder(limiter, "a", Pool("http://there/v1", "model", 32, 32))
    other.reports(demand=100)
    assert (other.receives() or Holder).slots == 32


class Cluster:
    """A limiter with its leases, and one gate."""

    def __init__(self) -> None:
        self.limiter = SharedLimiter()  # what the actor runs
        self.shared = self.limiter._shared
        self._number = 0

    async def slots(self) -> int:
        """What the gate is granted now."""
        self._number += 1
        report = Report(f"gate of {id(self)}", self._number, POOL, epoch=0, demand=100)
        await self.limiter.notify(report)
        return (await self.limiter.exchange(report, 0.0)).slots

    async def leave(self) -> None:
        await self.limiter.notify(Report(f"gate of {id(self)}", self._number + 1, POOL, leaving=True))


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


async def _until(check: Any) -> None:
    async with asyncio.timeout(60):
        while not await check():  # noqa: ASYNC110  # another process changes it
            await asyncio.sleep(0.02)


async def test_clusters_share_the_limits_as_they_come_and_go(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import redis.asyncio

    monkeypatch.setenv("SHARED_URL", redis_url)
    monkeypatch.setattr(sharing, "_EVERY_S", 0.02)
    one, two, three = Cluster(), Cluster(), Cluster()

    async def has(expected: dict[Cluster, int]) -> bool:
        return {cluster: await cluster.slots() for cluster in expected} == expected

    await _until(lambda: has({one: 32}))
    await _until(lambda: has({one: 16, two: 16}))
    await _until(lambda: has({one: 10, two: 10, three: 10}))
    await three.leave()
    await _until(lambda: has({one: 16, two: 16}))
    # One that dies gives nothing back; its lease expires.
    for task in two.shared._tasks.values():
        task.cancel()
    async with redis.asyncio.from_url(redis_url) as client:
        await client.zadd(lease_key(POOL.endpoint), {two.shared._member: 1})
    await _until(lambda: has({one: 32}))
    await one.leave()
    await _until(_none(redis_url))


class Parts:
    """The parts of an endpoint's limits that a limiter uses, in order."""

    def __init__(self) -> None:
        self.clusters: list[int] = []

    def uses(self, endpoint: str) -> bool:
        return len(self.clusters) < 3

    def divide(self, endpoint: str, clusters: int) -> None:
        self.clusters.append(clusters)


class Leases:
    """A client of a server, which answers each renewal with the number of leases."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)

    async def eval(self, *_: Any) -> int:
        return self.answers.pop(0)

    async def zrem(self, *_: Any) -> None: ...

    async def aclose(self) -> None: ...


@pytest.mark.parametrize(
    ("answers", "parts"),
    [
        ((2, 2, 2), [sharing._MANY, 2, 2]),  # the others make room in the first round
        ((1, 2), [sharing._MANY, 1, 2]),
    ],
)
async def test_a_cluster_that_joins_others_waits_until_they_have_made_room(
    answers: tuple[int, ...], parts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "_EVERY_S", 0.0)
    limiter, client = Parts(), Leases(*answers)
    shared = sharing.SharedLimits(limiter, lambda _: client)
    shared.take(Report("gate", 1, POOL, epoch=0, demand=100))
    assert limiter.clusters == [sharing._MANY], "the first requests wait for the answer"
    await asyncio.gather(*shared._tasks.values())
    assert (limiter.clusters, client.answers) == (parts, [])


def _none(url: str) -> Any:
    import redis.asyncio

    async def none_left() -> bool:
        async with redis.asyncio.from_url(url) as client:
            return int(await client.zcard(lease_key(POOL.endpoint))) == 0

    return none_left


async def test_a_server_that_is_away_changes_nothing_and_shows_no_password(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SHARED_URL", "redis://:canary-pw@127.0.0.1:1/0")
    monkeypatch.setattr(sharing, "_EVERY_S", 0.01)
    cluster = Cluster()

    async def is_said() -> bool:
        return await cluster.slots() == 32 and "limits are not shared" in caplog.text

    await _until(is_said)
    await asyncio.sleep(0.05)
    assert caplog.text.count("limits are not shared") == 1
    assert "canary-pw" not in caplog.text
    await cluster.leave()
    await _until(lambda: _ended(cluster))


async def _ended(cluster: Cluster) -> bool:
    return not cluster.shared._tasks
