from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gpo.cache import redis as redis_store
from gpo.cache.redis import RedisStore
from gpo.cache.store import CompletionStore, Missing
from gpo.models.cached import CachedModel
from gpo.models.protocol import Completion, Sampling, Usage
from gpo.testing.contracts import CompletionStoreContract
from gpo.testing.fakes import FakeModel
from tests.servers import redis_command, redis_server, wait_for

redis = pytest.importorskip("redis")
PASSWORD = "canary-3c19"
REPLY = Completion("reply", Usage())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server with a password."""
    with redis_server(tmp_path_factory.mktemp("redis"), PASSWORD) as url:
        yield url


@pytest.fixture
def client(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A separate client of the empty server that the variable names."""
    monkeypatch.setenv("GPO_REDIS_URL", server)
    with redis.Redis.from_url(server) as connection:
        connection.flushall()
        yield connection


class TestRedis(CompletionStoreContract):
    @pytest.fixture(autouse=True)
    def _client(self, client: Any) -> None:
        self.client = client

    def make(self) -> CompletionStore:
        return RedisStore("GPO_REDIS_URL")

    def damage(self, key: bytes) -> None:
        name = f"gpo:1:{{{key.hex()}}}"
        self.client.set(name, self.client.get(name)[:-1] + b"\7")

    @pytest.fixture(autouse=True)
    def _short_leases(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(redis_store, "_LEASE_MS", 1000)


async def test_unused_completions_expire(client: Any) -> None:
    store = RedisStore("GPO_REDIS_URL", ttl_s=100.0)
    await store.put(b"key", Completion("reply", Usage()))
    (name,) = client.keys()
    assert 90 < client.ttl(name) <= 100
    client.expire(name, 5)
    await store.find(b"key")
    assert 90 < client.ttl(name) <= 100


async def test_a_claim_is_renewed_during_the_call(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_store, "_LEASE_MS", 6000)
    store = RedisStore("GPO_REDIS_URL")
    assert await store.find(b"key") is Missing.CLAIMED
    (name,) = client.keys("*:claim")
    left_ms, before_ms = client.pttl(name), 10_000
    async with asyncio.timeout(30):
        while left_ms <= before_ms:  # it falls until the claim is renewed
            await asyncio.sleep(0.05)
            left_ms, before_ms = client.pttl(name), left_ms
    assert await store.find(b"key") is Missing.ELSEWHERE
    client.set(name, "another process", px=200)  # which died
    await asyncio.sleep(0.4)
    assert await store.find(b"key") is Missing.CLAIMED


async def test_the_claim_of_another_process_is_not_released(client: Any) -> None:
    store = RedisStore("GPO_REDIS_URL")
    assert await store.find(b"key") is Missing.CLAIMED
    (name,) = client.keys("*:claim")
    client.set(name, "another process", px=5000)
    await store.release(b"key")
    assert client.get(name) == b"another process"


async def _makes_every_call(store: RedisStore) -> None:
    inner = FakeModel(lambda *_: "reply")
    model = CachedModel(inner, store, {"model": "m"})
    for _ in range(3):
        reply = await model.complete([{"role": "user", "content": "?"}], Sampling(temperature=0.0))
        assert (reply.text, reply.usage.requests) == ("reply", 1)
    assert len(inner.calls) == 3


NEVER, AWAY = "is no longer used", "does not answer, and is not used until it does"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"redis://:{PASSWORD}@127.0.0.1:1/0", AWAY),
        (f"redis://:{PASSWORD}@127.0.0.1:{PASSWORD}/0", NEVER),
        (f"{PASSWORD}", NEVER),
        (f"http://:{PASSWORD}@127.0.0.1/", NEVER),
        (f"redis://:{PASSWORD}@no-such-host.invalid/0", AWAY),
        ("", NEVER),
    ],
)
async def test_an_unusable_server_is_ignored_and_its_address_not_shown(
    url: str, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GPO_REDIS_URL", url)
    with caplog.at_level(logging.DEBUG):
        await _makes_every_call(RedisStore("GPO_REDIS_URL"))
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert f"$GPO_REDIS_URL {said}" in warning.getMessage()
    assert PASSWORD not in caplog.text


async def test_a_server_that_refuses_the_password_is_ignored(
    server: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GPO_REDIS_URL", server.replace(PASSWORD, "wrong"))
    await _makes_every_call(RedisStore("GPO_REDIS_URL"))
    assert "AuthenticationError" in caplog.text
    assert NEVER in caplog.text


async def test_a_full_server_is_ignored(client: Any, caplog: pytest.LogCaptureFixture) -> None:
    try:
        client.config_set("maxmemory", 1)
        await _makes_every_call(RedisStore("GPO_REDIS_URL"))
    finally:
        client.config_set("maxmemory", 0)
    assert "refuses commands: OutOfMemoryError" in caplog.text
    store = RedisStore("GPO_REDIS_URL")
    await store.put(b"later", REPLY)
    assert await store.find(b"later") == REPLY


@dataclass
class Server:
    """A server that can be stopped, and restarted at its port."""

    options: list[str]
    url: str
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(self.options, stdout=subprocess.DEVNULL)
        wait_for(redis.Redis.from_url(self.url).ping, redis.ConnectionError)

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def mortal(tmp_path: Path, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    url = f"redis://127.0.0.1:{unused_tcp_port}/0"
    monkeypatch.setenv("GPO_REDIS_URL", url)
    monkeypatch.setattr(redis_store, "_PAUSES_S", (0.05,))
    monkeypatch.setattr(redis_store, "_TIMEOUT_S", 0.3)
    server = Server(redis_command(tmp_path, unused_tcp_port), url)
    yield server
    server.end()


@pytest.mark.parametrize("way", ["not there yet", "ended", "silent"])
async def test_a_server_is_used_again_when_it_is_back(
    way: str, mortal: Server, caplog: pytest.LogCaptureFixture
) -> None:
    store = RedisStore("GPO_REDIS_URL")
    if way != "not there yet":
        mortal.start()
        await store.put(b"before", REPLY)
        assert await store.find(b"before") == REPLY
        assert mortal.process is not None
        mortal.end() if way == "ended" else mortal.process.send_signal(signal.SIGSTOP)
    assert await store.find(b"key") is Missing.CLAIMED
    assert AWAY in caplog.text
    async with asyncio.timeout(redis_store._TIMEOUT_S):  # no call waits while the server is known to be away
        for number in range(100):
            assert await store.find(b"%d" % number) is Missing.CLAIMED
        await store.put(b"made meanwhile", REPLY)
    if way == "silent":
        assert mortal.process is not None
        mortal.process.send_signal(signal.SIGCONT)
    else:
        mortal.start()
    async with asyncio.timeout(20):
        while "answers again" not in caplog.text:  # noqa: ASYNC110  # it counts by itself
            await asyncio.sleep(0.01)
    assert await store.find(b"made meanwhile") == REPLY
    await store.put(b"key", REPLY)
    assert await store.find(b"key") == REPLY


async def test_a_refused_command_does_not_affect_others(client: Any, caplog: pytest.LogCaptureFixture) -> None:
    store = RedisStore("GPO_REDIS_URL")
    await store.put(b"well", REPLY)
    client.lpush(f"gpo:1:{{{b'ill'.hex()}}}", "no text")
    ill, well = await asyncio.gather(store.find(b"ill"), store.find(b"well"))
    assert (ill, well) == (Missing.CLAIMED, REPLY)
    assert "refuses commands: ResponseError" in caplog.text
    assert await store.find(b"well") == REPLY


@pytest.mark.parametrize(
    ("error", "is_final"),
    [
        (redis.exceptions.BusyLoadingError(), False),
        (redis.TimeoutError(), False),
        (ConnectionResetError(), False),
        (redis.exceptions.ReadOnlyError(), False),
        (redis.AuthenticationError(), True),
        (redis.exceptions.NoPermissionError(), True),
        (KeyError("GPO_REDIS_URL"), True),
        (ValueError("no port"), True),
        (ImportError("redis"), True),
    ],
)
def test_final_errors_are_distinguished_from_transient_ones(error: Exception, is_final: bool) -> None:
    assert redis_store._is_final(error) is is_final
