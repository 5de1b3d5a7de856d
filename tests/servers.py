"""Servers on a free port of loopback: HTTP, Redis and PostgreSQL.

A test is skipped if the program that it starts is not installed.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from benchmarks.measuring.servers import free_port

if TYPE_CHECKING:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

_STARTS_WITHIN_S = 30.0


@asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """The base URL of an endpoint that handles each connection with this function."""
    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    finally:
        listener.close()


@asynccontextmanager
async def serving(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]], tls: ssl.SSLContext | None = None, **settings: Any
) -> AsyncIterator[str]:
    """The base URL of a server with this handler."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1, **settings)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        yield f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


class HttpServer:
    """Answers every POST and PUT; close it at the end.

    Args:
        answer: the reply's body, from the request and its body.
    """

    def __init__(self, answer: Callable[[BaseHTTPRequestHandler, bytes], bytes]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                reply = answer(self, self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            do_POST = do_PUT = _answer

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Receiver(HttpServer):
    """Receives OpenTelemetry's traces over HTTP, as a collector does."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.headers: list[str | None] = []
        super().__init__(self._receive)

    def _receive(self, request: BaseHTTPRequestHandler, body: bytes) -> bytes:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        assert request.path == "/v1/traces"
        if request.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.headers.append(request.headers.get("x-key"))
        self.requests.append(ExportTraceServiceRequest.FromString(body))
        return b""

    def spans(self) -> list[Span]:
        """All received spans."""
        resources = [resource for request in self.requests for resource in request.resource_spans]
        return [span for resource in resources for scope in resource.scope_spans for span in scope.spans]


class Pushgateway(HttpServer):
    """Keeps what is pushed to it, as Prometheus' Pushgateway does."""

    def __init__(self) -> None:
        self.pushed: list[str] = []
        super().__init__(self._keep)

    def _keep(self, _: BaseHTTPRequestHandler, body: bytes) -> bytes:
        self.pushed.append(body.decode())
        return b""

    def sums(self, name: str, label: str) -> dict[str, float]:
        """Label value → sum of the series with this name in the last push."""
        from prometheus_client.parser import text_string_to_metric_families

        found: dict[str, float] = {}
        for family in text_string_to_metric_families(self.pushed[-1]):
            for sample in family.samples:
                if sample.name == name:
                    found[sample.labels[label]] = found.get(sample.labels[label], 0.0) + sample.value
        return found


def redis_command(folder: Path, port: int, password: str = "") -> list[str]:
    """The command that starts a Redis server with no file of its data."""
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
    return [program("redis-server"), *options, *(["--requirepass", password] if password else [])]


@contextmanager
def redis_server(folder: Path, password: str = "") -> Iterator[str]:
    """The URL of an empty Redis server."""
    redis = pytest.importorskip("redis")
    port = free_port()
    url = f"redis://{f':{password}@' if password else ''}127.0.0.1:{port}/0"
    with subprocess.Popen(redis_command(folder, port, password), stdout=subprocess.DEVNULL) as process:
        try:
            wait_for(redis.Redis.from_url(url).ping, redis.ConnectionError)
            yield url
        finally:
            process.kill()


@contextmanager
def postgresql_server() -> Iterator[str]:
    """The URL of an empty database, without a password and without waiting for the disk."""
    psycopg = pytest.importorskip("psycopg")
    programs = program("initdb"), program("postgres")
    # It refuses to run as root, and only root can enter pytest's folders.
    owner = "postgres" if os.geteuid() == 0 else None
    identity: dict[str, Any] = {} if owner is None else {"user": owner, "group": owner, "extra_groups": ()}
    folder = Path(tempfile.mkdtemp(prefix="gpo-postgresql-"))
    try:
        if owner is not None:
            _give(folder, owner)
        options = ["--username", "gpo", "--auth", "trust", "--no-sync", "--encoding", "UTF8"]
        initial = ["--pgdata", folder / "data", *options]
        made = subprocess.run([programs[0], *initial], cwd=folder, capture_output=True, text=True, **identity)
        assert made.returncode == 0, made.stderr
        port = free_port()
        settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (
            (folder / "log").open("w") as log,
            subprocess.Popen(
                [programs[1], "-D", folder / "data", *options], cwd=folder, stdout=log, stderr=log, **identity
            ) as process,
        ):
            url = f"postgresql://gpo@127.0.0.1:{port}/postgres"
            try:
                wait_for(lambda: psycopg.connect(url).close(), psycopg.OperationalError)
                yield url
            finally:
                process.send_signal(signal.SIGINT)  # "fast" shutdown: it closes the connections
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def program(name: str) -> str:
    """The path of an installed program."""
    # Debian installs PostgreSQL's programs outside PATH, in a folder per version.
    installed = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *installed]))
    if found is None:
        pytest.skip(f"{name} is not installed on this machine")
    return found


def _give(folder: Path, owner: str) -> None:
    try:
        shutil.chown(folder, owner, owner)
    except LookupError:
        pytest.skip(f"PostgreSQL does not run as root, and there is no user {owner}")


def wait_for(answers: Callable[[], object], refused: type[Exception]) -> None:
    """Call a function until it no longer raises this error."""
    deadline = time.monotonic() + _STARTS_WITHIN_S
    while True:
        try:
            answers()
        except refused:
            assert time.monotonic() < deadline, f"no answer in {_STARTS_WITHIN_S:g} s"
            time.sleep(0.05)
        else:
            return
