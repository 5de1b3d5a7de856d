from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings

from cluster.session.ray_environment import prepare_environment
from tests.configs import WriteConfig, write_small_config
from tests.waiting import wait_until

if TYPE_CHECKING:
    from benchmarks.simulated_endpoint import SimulatedEndpoint

# Before anything imports them, so that their assertions are explained like those of a test module.
pytest.register_assert_rewrite("gpo.testing.contracts")

settings.register_profile(
    "deterministic",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],  # on a busy machine, everything is
)
settings.load_profile("deterministic")

# Before anything imports Ray, which reads its variables once. The tests' cluster requires a token, as a run's does.
os.environ.pop("RAY_ADDRESS", None)
if "PYTEST_XDIST_WORKER" in os.environ:
    # Each worker of xdist makes a token; it would otherwise inherit that of the process which started it.
    os.environ.pop("RAY_AUTH_MODE", None)
prepare_environment("local")


class Until(Protocol):
    def __call__(self, condition: Callable[[], bool], what: str, *, timeout_s: float = 120) -> None: ...


@pytest.fixture(scope="session")
def until() -> Until:
    """Waits for a condition, up to a deadline."""
    return partial(wait_until, timeout_s=120)


@pytest.fixture
def endpoint() -> Iterator[SimulatedEndpoint]:
    from benchmarks.simulated_endpoint import SimulatedEndpoint

    with SimulatedEndpoint() as running:
        yield running


@pytest.fixture(scope="session")
def write_config() -> WriteConfig:
    return write_small_config


class ObjectStore:
    """An S3-compatible server on loopback; this process's AWS variables name it, and child processes inherit them."""

    def __init__(self) -> None:
        # Imported here since it takes seconds and most tests do not need it.
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)

    def __enter__(self) -> ObjectStore:
        from s3fs import S3FileSystem

        self._server.start()
        self._answers = True
        host, port = self._server.get_host_and_port()
        self._environment = pytest.MonkeyPatch()
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            self._environment.setenv(name, "testing")
        self._environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        self._environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        forget_connections()
        S3FileSystem().makedirs("bucket", exist_ok=True)  # all servers of a process share one memory
        return self

    def __exit__(self, *exception: object) -> None:
        self._environment.undo()
        forget_connections()
        self.stop()

    def stop(self) -> None:
        """Answer no more requests."""
        if self._answers:
            self._answers = False
            self._server.stop()

    def start_again(self) -> None:
        """Start again after ``stop``, at the same address and with the same content."""
        from moto.server import ThreadedMotoServer

        host, port = self._server.get_host_and_port()
        self._server = ThreadedMotoServer(ip_address=host, port=port, verbose=False)
        self._server.start()
        self._answers = True

    def new_folder(self) -> str:
        """The URL of an unused folder."""
        return f"s3://bucket/{uuid4().hex}"


def forget_connections() -> None:
    """Drop s3fs's cached connections, which keep the server address they were made with."""
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    with ObjectStore() as store:
        yield store


@pytest.fixture(params=["path", "file://", "memory://", "s3://"])
def new_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    """Names unused folders as a user would; each test runs for every kind of storage."""
    if request.param == "memory://":
        return lambda: f"memory://{uuid4().hex}"
    if request.param == "s3://":
        store: ObjectStore = request.getfixturevalue("object_store")
        return store.new_folder
    prefix = "" if request.param == "path" else "file://"
    return lambda: f"{prefix}{tmp_path_factory.mktemp('storage')}"


@pytest.fixture
def stopped_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A folder in an object store that does not answer; the client gives up at once."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("actors.folder.RETRY_S", 0.0)
    with socket.socket() as taken:  # bound but not listening: it refuses connections
        taken.bind(("127.0.0.1", 0))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "testing")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        forget_connections()
        yield "s3://bucket/folder"
    forget_connections()
