from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from hypothesis import settings

from cluster.session.ray_environment import prepare_environment

# Before anything imports them, so that their assertions explain themselves as those of a test module do.
pytest.register_assert_rewrite("gpo.testing.contracts")

settings.register_profile("deterministic", derandomize=True, deadline=None, database=None)
settings.load_profile("deterministic")

# Before anything imports Ray, which reads its variables once: the cluster of the tests asks for a token, as ours do.
os.environ.pop("RAY_ADDRESS", None)
if "PYTEST_XDIST_WORKER" in os.environ:
    # A token of its own for each process that runs tests, which inherits that of the one that started it.
    os.environ.pop("RAY_AUTH_MODE", None)
prepare_environment("local")


class ObjectStore:
    """An S3-compatible server on loopback, which the AWS variables of this process and of those it starts name."""

    def __init__(self) -> None:
        # Here, not above: most tests have no use for them, and they take seconds to load.
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
        S3FileSystem().makedirs("bucket", exist_ok=True)  # all servers of a process have one memory
        return self

    def __exit__(self, *exception: object) -> None:
        self._environment.undo()
        forget_connections()
        self.stop()

    def stop(self) -> None:
        """From now on, nothing answers any more."""
        if self._answers:
            self._answers = False
            self._server.stop()

    def start_again(self) -> None:
        """What was there before the stop is there again, at the same address."""
        from moto.server import ThreadedMotoServer

        host, port = self._server.get_host_and_port()
        self._server = ThreadedMotoServer(ip_address=host, port=port, verbose=False)
        self._server.start()
        self._answers = True

    def new_folder(self) -> str:
        """The URL of a folder that nobody has used."""
        return f"s3://bucket/{uuid4().hex}"


def forget_connections() -> None:
    """Of every object store: a connection knows the server that the variables named when it was made."""
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    with ObjectStore() as store:
        yield store


@pytest.fixture(params=["path", "file://", "memory://", "s3://"])
def new_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    """Makes places that nobody has used, as a user would name them; every test runs for each kind of storage."""
    if request.param == "memory://":
        return lambda: f"memory://{uuid4().hex}"
    if request.param == "s3://":
        store: ObjectStore = request.getfixturevalue("object_store")
        return store.new_folder
    prefix = "" if request.param == "path" else "file://"
    return lambda: f"{prefix}{tmp_path_factory.mktemp('storage')}"


@pytest.fixture
def stopped_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A folder in an object store that does not answer; nobody has patience with it."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("actors.folder.PATIENCE_S", 0.0)
    with socket.socket() as taken:  # and refuses connections, since it does not listen
        taken.bind(("127.0.0.1", 0))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "testing")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        forget_connections()
        yield "s3://bucket/folder"
    forget_connections()
