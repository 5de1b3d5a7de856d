from __future__ import annotations

import asyncio
import gc
import gzip
import ipaddress
import json
import logging
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks.simulated_endpoint import CLIENT_GONE, Behaviour, SimulatedEndpoint
from gpo.errors import ConfigError, ModelUnavailable
from gpo.models.protocol import Completion, Message, Sampling
from gpo.models.retrying import RetryingModel
from gpo.models.transport import proxy_for, tls_for
from tests.servers import listening, serving
from tests.unit.gpo.models.remote import endpoint_of, remote_model

KEY = "canary-6b1f9e"
ASKED: list[Message] = [{"role": "user", "content": "Classify.\nwhere is my parcel"}]
REPLY = json.dumps({"choices": [{"message": {"content": "yes"}}]}).encode()

Raw = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]
"""Handles a connection of a socket server; receives the request's head."""


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def model(base_url: str, **settings: Any) -> RetryingModel:
    usual: dict[str, Any] = {"max_attempts": 1, "max_backoff_s": 0.01, "timeout_s": 5.0, "patience_s": 0.05}
    return remote_model(base_url, **{**usual, **settings})


async def complete(asked: RetryingModel) -> Completion:
    return await asked.complete(ASKED, Sampling())


async def failure(asked: RetryingModel) -> str:
    with pytest.raises(ModelUnavailable) as caught:
        await complete(asked)
    error: BaseException | None = caught.value
    assert KEY not in repr(error)
    assert error is not None
    assert error.__cause__ is None
    assert error.__suppress_context__
    return str(error)


@asynccontextmanager
async def speaking(speak: Raw) -> AsyncIterator[str]:
    """The base URL of a server that sends these bytes on every connection and closes it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
            await speak(head, writer)
            await writer.drain()
        writer.close()

    async with listening(serve) as base_url:
        yield base_url


async def yes(_: web.Request) -> web.Response:
    return web.Response(body=REPLY, content_type="application/json")


async def test_connections_are_reused() -> None:
    peers: list[object] = []

    async def note(request: web.Request) -> web.Response:
        assert request.transport is not None
        peers.append(request.transport.get_extra_info("peername"))
        return await yes(request)

    async with serving(note) as url:
        asked = model(url, max_concurrency=3)
        await asyncio.gather(*(complete(asked) for _ in range(9)))
    assert len(peers) == 9
    assert len(set(peers)) <= 3


async def test_a_connection_that_the_server_closed_while_idle_costs_no_failure() -> None:
    gone = asyncio.Event()

    async def close_soon(request: web.Request) -> web.Response:
        async def close() -> None:
            await asyncio.sleep(0.02)  # the reply has arrived by then
            assert request.transport is not None
            request.transport.close()
            gone.set()

        closing.append(asyncio.create_task(close()))
        return await yes(request)

    closing: list[asyncio.Task[None]] = []
    async with serving(close_soon) as url:
        asked = model(url)
        for _ in range(3):
            gone.clear()
            completion = await complete(asked)
            assert (completion.text, completion.usage.retries) == ("yes", 0)
            await gone.wait()
            await asyncio.sleep(0.02)


async def test_a_reply_that_is_not_http_is_unavailable_and_hides_the_key() -> None:
    async def repeat(head: bytes, writer: asyncio.StreamWriter) -> None:
        key = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"authorization:"))
        assert KEY.encode() in key
        writer.write(key + b"\r\n\r\n")

    async with speaking(repeat) as url:
        assert "task-model at http://127.0.0.1" in await failure(model(url))


@pytest.mark.parametrize(
    "sent", [b"", b"HTTP/1.1 200 OK\r\nContent-", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"]
)
async def test_a_connection_that_breaks_is_unavailable(sent: bytes) -> None:
    async def cut(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)

    async with speaking(cut) as url:
        await failure(model(url))


@pytest.mark.parametrize("proxied", [False, True])
async def test_a_reply_that_arrives_byte_by_byte_is_bounded_in_time(
    proxied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def drip(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with speaking(drip) as url:
        if proxied:
            monkeypatch.setenv("HTTP_PROXY", url.removesuffix("/v1"))
            url = "http://far.invalid/v1"
        said = await asyncio.wait_for(failure(model(url, timeout_s=0.2)), 60)
    assert "no reply within 0.2 s" in said


async def test_a_cancelled_call_closes_its_connection(server: SimulatedEndpoint) -> None:
    server.behaviour = Behaviour(hang_rate=1.0)
    asked = model(server.base_url, timeout_s=60.0)
    call = asyncio.create_task(complete(asked))
    async with asyncio.timeout(60):
        while not server._service._in_flight:  # noqa: ASYNC110  # the server's thread knows no event of ours
            await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    async with asyncio.timeout(60):
        while not server.requests:  # noqa: ASYNC110  # the server's thread knows no event of ours
            await asyncio.sleep(0.01)
    assert [record.status for record in server.requests] == [CLIENT_GONE]
    server.behaviour = Behaviour()
    assert (await complete(asked)).text


async def test_compressed_replies_are_decompressed() -> None:
    async def packed(request: web.Request) -> web.Response:
        assert "gzip" in request.headers["Accept-Encoding"]
        return web.Response(body=gzip.compress(REPLY), headers={"Content-Encoding": "gzip"})

    async with serving(packed) as url:
        assert (await complete(model(url))).text == "yes"


async def test_redirections_are_followed_with_the_same_body() -> None:
    bodies: list[bytes] = []

    async def moved(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        if not request.path.startswith("/new"):
            return web.Response(status=307, headers={"Location": f"/new{request.path}"})
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        return await yes(request)

    async with serving(moved) as url:
        assert (await complete(model(url))).text == "yes"
    assert len(bodies) == 2
    assert bodies[0] == bodies[1] != b""


async def test_the_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for: list[str] = []

    async def proxy(request: web.Request) -> web.Response:
        asked_for.append(str(request.url))
        return await yes(request)

    async with serving(proxy) as url:
        monkeypatch.setenv("HTTP_PROXY", url.removesuffix("/v1"))
        assert (await complete(model("http://far.invalid/v1"))).text == "yes"
        assert asked_for == ["http://far.invalid/v1/chat/completions"]
        monkeypatch.setenv("NO_PROXY", "far.invalid")
        await failure(model("http://far.invalid/v1"))
        assert len(asked_for) == 1


@pytest.mark.parametrize(
    ("variables", "url", "expected"),
    [
        ({}, "https://far.test/v1", None),
        ({"HTTPS_PROXY": "http://proxy:1"}, "https://far.test/v1", "http://proxy:1"),
        ({"https_proxy": "proxy:1"}, "https://far.test:8443/v1", "http://proxy:1"),
        ({"HTTP_PROXY": "http://proxy:1"}, "https://far.test/v1", None),
        ({"ALL_PROXY": "http://proxy:1"}, "http://far.test/v1", "http://proxy:1"),
        ({"ALL_PROXY": "nonsense://", "HTTPS_PROXY": "http://proxy:1"}, "https://far.test/v1", "http://proxy:1"),
        ({"ALL_PROXY": "http://proxy:1"}, "http://localhost:8600/v1", None),
        ({"ALL_PROXY": "http://proxy:1"}, "http://127.0.0.1:8600/v1", None),
        ({"ALL_PROXY": "http://proxy:1"}, "http://[::1]:8600/v1", None),
        ({"ALL_PROXY": "http://proxy:1", "NO_PROXY": "10.0.0.7"}, "http://10.0.0.7:8600/v1", None),
        ({"ALL_PROXY": "nonsense://", "NO_PROXY": ".test"}, "http://name:word@far.test/v1", None),
        ({"ALL_PROXY": "socks5://proxy:1", "NO_PROXY": "*"}, "http://far.test/v1", None),
        ({"NO_PROXY": "far.test"}, "http://far.test/v1", None),
    ],
)
def test_which_urls_are_proxied(
    variables: dict[str, str], url: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(url) == expected


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:1080", "needs the package socksio"),
        ("ALL_PROXY", "socks://127.0.0.1:1080", "kind 'socks'"),
        ("all_proxy", "socks4://name:canary@127.0.0.1:1080", "kind 'socks4'"),
        ("HTTPS_PROXY", "http://", "is not the address of a proxy"),
        ("HTTPS_PROXY", "http://name:canary@proxy:port", "is not the address of a proxy"),
        ("https_proxy", "http://[::1", "is not the address of a proxy"),
        ("HTTPS_PROXY", "http://name:canary@proxy:99999", "is not the address of a proxy"),
    ],
)
async def test_an_unusable_proxy_is_one_error_that_names_the_variable(
    variable: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=said) as caught:
        await complete(model("https://far.invalid/v1"))
    assert caught.value.field == variable
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"])
@pytest.mark.parametrize("content", [None, b"no certificate"])
async def test_unusable_certificates_are_one_error_that_names_the_variable(
    variable: str, content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "bundle.pem").write_bytes(content)
    monkeypatch.setenv(variable, str(tmp_path / "bundle.pem"))
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        await complete(model("https://far.invalid/v1"))
    assert caught.value.field == variable
    async with serving(yes) as url:  # plain HTTP needs no certificates
        assert (await complete(model(url))).text == "yes"


def test_a_folder_of_certificates_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert tls_for("https://far.test/v1").verify_mode is ssl.CERT_REQUIRED


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "local")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    certified, secret = folder / "certificate.pem", folder / "key.pem"
    certified.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
    return certified, secret


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
async def test_certificates_are_checked_against_those_of_the_environment(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certified, secret = certificate(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certified, secret)
    async with serving(yes, tls) as url:
        assert "certificate" in (await failure(model(url))).lower()
        monkeypatch.setenv(variable, str(certified))
        assert (await complete(model(url))).text == "yes"


async def test_a_password_in_the_url_takes_precedence_over_the_key() -> None:
    async def check(request: web.Request) -> web.Response:
        return await yes(request) if request.headers["Authorization"].startswith("Basic ") else web.Response(status=401)

    async with serving(check) as url:
        assert (await complete(model(url.replace("//", "//name:word@")))).text == "yes"
    assert "name:word" not in await failure(model(url.replace("//", "//name:word@")))  # the server is gone


async def test_the_log_never_contains_the_key(server: SimulatedEndpoint, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server.behaviour = Behaviour(fail_next=1)
    await complete(model(server.base_url, max_attempts=2))
    assert "HTTP Request: POST" in caplog.text
    assert KEY not in caplog.text


@pytest.mark.parametrize("in_a_cycle", [False, True])
async def test_a_collected_client_closes_its_connections_without_warnings(
    in_a_cycle: bool, server: SimulatedEndpoint, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    gc.collect()  # what other tests left
    caplog.clear()
    recwarn.clear()
    asked = model(server.base_url)
    await complete(asked)
    if in_a_cycle:  # the garbage collector then finalizes session and transport in any order
        endpoint_of(asked).client.own = endpoint_of(asked).client  # type: ignore[attr-defined]
    del asked
    gc.collect()
    await asyncio.sleep(0.05)
    gc.collect()
    assert not caplog.records
    assert not [warning for warning in recwarn if issubclass(warning.category, ResourceWarning)]


def test_a_model_works_in_several_event_loops_and_ends_without_warnings(server: SimulatedEndpoint) -> None:
    program = f"""
import asyncio, uvloop
from gpo.models.endpoint import Endpoint
from gpo.models.protocol import Sampling
from gpo.models.openai import openai_model

model = openai_model(Endpoint({server.base_url!r}, "task-model"))
asked = [{{"role": "user", "content": "where is my parcel"}}]
for new_loop in (asyncio.new_event_loop, asyncio.new_event_loop, uvloop.new_event_loop):
    with asyncio.Runner(loop_factory=new_loop) as runner:
        print(runner.run(model.complete(asked, Sampling())).usage.retries)
"""
    command = [sys.executable, "-W", "always::ResourceWarning", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["0", "0", "0"]
    assert "Unclosed" not in done.stderr
