"""Redis and PostgreSQL on a free port of loopback; a test is skipped if the program is not installed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_STARTS_WITHIN_S = 30.0


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """The URL of an empty Redis server."""
    redis = pytest.importorskip("redis")
    program, port = _program("redis-server"), free_port()
    url = f"redis://127.0.0.1:{port}/0"
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with subprocess.Popen([program, *options], stdout=subprocess.DEVNULL) as process:
        try:
            _wait_for(redis.Redis.from_url(url).ping, redis.ConnectionError)
            yield url
        finally:
            process.kill()


@contextmanager
def postgresql_server() -> Iterator[str]:
    """The URL of an empty database, without a password and without waiting for the disk."""
    psycopg = pytest.importorskip("psycopg")
    programs = _program("initdb"), _program("postgres")
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
                _wait_for(lambda: psycopg.connect(url).close(), psycopg.OperationalError)
                yield url
            finally:
                process.send_signal(signal.SIGINT)  # "fast" shutdown: it closes the connections
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _program(name: str) -> str:
    # Debian installs PostgreSQL's programs outside PATH, in a folder per version.
    beside = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *beside]))
    if found is None:
        pytest.skip(f"{name} is not installed on this machine")
    return found


def _give(folder: Path, owner: str) -> None:
    try:
        shutil.chown(folder, owner, owner)
    except LookupError:
        pytest.skip(f"PostgreSQL does not run as root, and there is no user {owner}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(answers: Callable[[], object], refused: type[Exception]) -> None:
    deadline = time.monotonic() + _STARTS_WITHIN_S
    while True:
        try:
            answers()
        except refused:
            assert time.monotonic() < deadline, f"no answer in {_STARTS_WITHIN_S:g} s"
            time.sleep(0.05)
        else:
            return
