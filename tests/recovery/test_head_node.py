"""The head node with what it knows on a Redis server: killed whole, and started again at its port."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import ray

from benchmarks.simulated_endpoint import SimulatedEndpoint
from tests.paths import ROOT
from tests.recovery.conftest import Loss, now, repeated, results

if TYPE_CHECKING:
    from tests.commands import Gpo
    from tests.conftest import Until

pytestmark = pytest.mark.slow
LOCAL, WORKER = "127.0.0.1", "127.0.0.2"
HEAD = ray.util.get_node_ip_address()  # Ray puts it in place of 127.0.0.1
_MARK = "TEST_NODE_MARK"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOCAL, 0))
        return int(probe.getsockname()[1])


@dataclass
class Nodes:
    """A head node and a worker node on two addresses of this machine.

    Args:
        folder: for Redis's and Ray's files.
    """

    folder: Path
    port: int = field(default_factory=_free_port)
    redis_port: int = field(default_factory=_free_port)
    marks: dict[str, str] = field(default_factory=dict)
    redis: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"{HEAD}:{self.port}"

    def start_redis(self) -> None:
        self.redis = subprocess.Popen(
            ["redis-server", "--port", str(self.redis_port), "--save", "", "--dir", str(self.folder)],
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 20
        while True:
            with suppress(OSError):
                socket.create_connection((LOCAL, self.redis_port), timeout=1).close()
                return
            assert time.monotonic() < deadline, "Redis did not start"
            time.sleep(0.05)

    def start_head(self, cpus: int) -> None:
        # Left by one that was killed. With it, Ray takes the worker node on this machine for a head that still runs.
        (self.folder / "ray_current_cluster").unlink(missing_ok=True)
        where = ["--head", f"--port={self.port}", f"--temp-dir={self.folder}", "--include-dashboard=false"]
        self._start("head", HEAD, cpus, where, {"RAY_REDIS_ADDRESS": f"{LOCAL}:{self.redis_port}"})

    def start_worker(self, cpus: int) -> None:
        self._start("worker", WORKER, cpus, [f"--address={self.address}"], {})

    def _start(self, name: str, ip: str, cpus: int, where: list[str], env: Mapping[str, str]) -> None:
        self.marks[name] = uuid4().hex
        command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", f"--node-ip-address={ip}", f"--num-cpus={cpus}",
            "--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=150000000", *where,
        ]  # fmt: skip
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": str(ROOT), _MARK: self.marks[name], **env},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def kill(self, name: str) -> None:
        """All processes of the node at once."""
        wanted = f"{_MARK}={self.marks[name]}".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if wanted in (folder / "environ").read_bytes():
                    os.kill(int(folder.name), signal.SIGKILL)

    def end(self) -> None:
        for name in self.marks:
            self.kill(name)
        if self.redis is not None:
            self.redis.kill()
            self.redis.wait()


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    # Ray's sockets have long names already.
    folder = Path("/tmp") / f"gpo-{uuid4().hex[:8]}"  # noqa: S108
    folder.mkdir()
    running = Nodes(folder)
    running.start_redis()
    try:
        yield running
    finally:
        running.end()
        subprocess.run(["rm", "-rf", str(folder)], check=True)


_ON_THE_WORKER = f"""
import functools, sys
from cluster.session.ray_environment import prepare_environment
prepare_environment("auto")
import ray
ray.init = functools.partial(ray.init, _node_ip_address="{WORKER}")
from cluster.cli import main
sys.argv[0] = "gpo"
main()
"""


def test_a_run_on_another_node_goes_on_when_the_head_node_is_lost_and_comes_back(
    endpoint: SimulatedEndpoint,
    undisturbed: dict[str, Any],
    nodes: Nodes,
    gpo: Gpo,
    write_long_config: Callable[[Path, str], Path],
    ray_token: Mapping[str, str],
    until: Until,
    tmp_path: Path,
) -> None:
    nodes.start_head(0)
    nodes.start_worker(4)
    config = write_long_config(tmp_path / "lost", endpoint.base_url)
    arguments = ["run", config, "--run-dir", "results", "--address", nodes.address]
    command = gpo.start(*arguments, cwd=config.parent, env=ray_token, program=["-c", _ON_THE_WORKER])
    until(lambda: len(endpoint.requests) > 100, "the run is under way")
    lost = now()
    nodes.kill("head")
    time.sleep(5)
    nodes.start_head(0)
    loss = Loss("head node, driver on another", lost, now())
    done = command.finish(240)
    print(done.stderr)
    assert done.code == 0, done.stderr
    assert results(config.parent / "results") == undisturbed
    assert repeated(endpoint.requests, [loss]) == []
    loss.report(endpoint.requests)


def test_a_run_on_the_head_node_ends_with_it_and_is_resumed(
    endpoint: SimulatedEndpoint,
    undisturbed: dict[str, Any],
    nodes: Nodes,
    gpo: Gpo,
    write_long_config: Callable[[Path, str], Path],
    ray_token: Mapping[str, str],
    until: Until,
    tmp_path: Path,
) -> None:
    nodes.start_head(0)
    nodes.start_worker(4)
    config = write_long_config(tmp_path / "lost", endpoint.base_url)
    arguments = ["run", config, "--run-dir", "results", "--address", nodes.address]
    command = gpo.start(*arguments, cwd=config.parent, env=ray_token)
    until(lambda: len(endpoint.requests) > 100, "the run is under way")
    lost = now()
    nodes.kill("head")
    _, stderr = command.process.communicate(timeout=120)
    print(f"\nthe driver ended {now() - lost:.1f} s after its head node")
    assert command.process.returncode == 1
    assert "Failed to connect to GCS within 60 seconds" in stderr
    # Worker nodes have waited as long, and have ended as well.
    nodes.kill("worker")
    nodes.start_head(0)
    nodes.start_worker(4)
    loss = Loss("head node, driver on it", lost, now())
    resumed = gpo(*arguments, "--resume", cwd=config.parent, env=ray_token, timeout_s=150)
    assert resumed.code == 0, resumed.stderr
    assert results(config.parent / "results") == undisturbed
    assert repeated(endpoint.requests, [loss]) == []
    loss.report(endpoint.requests)
