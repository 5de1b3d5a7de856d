"""Nodes of a cluster are killed while a run works on them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import ray
from ray.cluster_utils import Cluster

from tests.commands import processes_with
from tests.paths import ROOT
from tests.recovery.conftest import ray_token
from tests.servers import free_port, redis_server

if TYPE_CHECKING:
    from tests.recovery.conftest import Disturbed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@contextmanager
def _cluster(**head: Any) -> Iterator[Cluster]:
    """A cluster whose head node has no CPUs, so that actors and replicas are on the worker nodes."""
    running = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **head})
    try:
        yield running
    finally:
        running.shutdown()


def test_a_run_resumes_when_the_node_of_all_its_actors_is_lost_and_replaced(disturbed: Disturbed) -> None:
    with _cluster(include_dashboard=False) as cluster:
        node = cluster.add_node(num_cpus=4)

        def replace() -> None:
            nonlocal node
            cluster.remove_node(node, allow_graceful=False)
            node = cluster.add_node(num_cpus=4)

        command = disturbed.start("--address", cluster.address)
        for answered in (100, 300):
            disturbed.wait_for_calls(answered)
            disturbed.lose("worker node", replace)
        disturbed.require_the_same(command.finish(240))


def test_a_submitted_run_on_several_nodes_resumes_when_one_of_them_is_lost(
    disturbed: Disturbed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # As on a cluster on which the program is installed: a job takes the first `python` in PATH.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    # Two actors and two replicas, two of which fit on a node.
    cpus = ("--set", "cluster.actor_cpus=0.4", "--set", "cluster.evaluator_cpus=0.4")
    cache = {"path": str(tmp_path / "completions.sqlite")}
    disturbed.folder, port = tmp_path / "runs" / "spread", free_port()
    with _cluster(include_dashboard=True, dashboard_port=port) as cluster:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(3)]
        disturbed.write_config(run={"dir": str(tmp_path / "runs")}, cache=cache)
        submit = ("submit", "config.yaml", *cpus, "--run-id", "spread", "--follow")
        address = ("--address", f"http://127.0.0.1:{port}")
        command = disturbed.gpo.start(*submit, *address, cwd=disturbed.cwd, env=ray_token())
        disturbed.wait_for_calls()
        disturbed.lose("worker node", lambda: cluster.remove_node(nodes[0], allow_graceful=False))
        done = command.finish(240)
    assert "step 2/5" in done.stdout
    disturbed.require_the_same(done)


LOCAL, WORKER = "127.0.0.1", "127.0.0.2"
HEAD = ray.util.get_node_ip_address()  # Ray puts it in place of 127.0.0.1
_MARK = "TEST_NODE_MARK"


@dataclass
class Nodes:
    """A head node and a worker node on two addresses of this machine; Redis keeps the state of the head node.

    Args:
        folder: for Ray's files.
        redis: host and port.
    """

    folder: Path
    redis: str
    port: int = field(default_factory=free_port)
    marks: dict[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"{HEAD}:{self.port}"

    def start_head(self) -> None:
        # A killed head leaves this file, with which Ray takes the worker node on this machine for a running head.
        (self.folder / "ray_current_cluster").unlink(missing_ok=True)
        options = ["--head", f"--port={self.port}", f"--temp-dir={self.folder}", "--include-dashboard=false"]
        self._start("head", HEAD, 0, options, {"RAY_REDIS_ADDRESS": self.redis})

    def start_worker(self) -> None:
        self._start("worker", WORKER, 4, [f"--address={self.address}"], {})

    def _start(self, name: str, ip: str, cpus: int, options: list[str], env: Mapping[str, str]) -> None:
        self.marks[name] = uuid4().hex
        command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", f"--node-ip-address={ip}", f"--num-cpus={cpus}",
            "--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=150000000", *options,
        ]  # fmt: skip
        env = {**os.environ, "PYTHONPATH": str(ROOT), _MARK: self.marks[name], **env}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr

    def kill(self, name: str) -> None:
        """Kill all processes of a node at once."""
        for number in processes_with(_MARK, self.marks[name]):
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    folder = Path("/tmp") / f"gpo-{uuid4().hex[:8]}"  # noqa: S108  # short: Ray's sockets have long names
    folder.mkdir()
    with ExitStack() as stack:
        stack.callback(subprocess.run, ["rm", "-rf", str(folder)], check=True)
        url = stack.enter_context(redis_server(tmp_path))
        running = Nodes(folder, url.removeprefix("redis://").partition("/")[0])
        stack.callback(lambda: [running.kill(name) for name in running.marks])
        running.start_head()
        running.start_worker()
        yield running


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


def test_a_run_on_a_worker_node_continues_when_the_head_node_is_lost_and_comes_back(
    disturbed: Disturbed, nodes: Nodes
) -> None:
    def restart() -> None:
        nodes.kill("head")
        time.sleep(5)
        nodes.start_head()

    command = disturbed.start("--address", nodes.address, program=["-c", _ON_THE_WORKER])
    disturbed.wait_for_calls()
    disturbed.lose("head node, driver on another", restart)
    disturbed.require_the_same(command.finish(240))


def test_a_run_on_the_head_node_ends_with_it_and_is_resumed(disturbed: Disturbed, nodes: Nodes) -> None:
    def restart() -> None:
        nodes.kill("head")
        started = time.monotonic()
        _, stderr = command.process.communicate(timeout=120)
        print(f"\nthe driver ended {time.monotonic() - started:.1f} s after its head node")
        assert command.process.returncode == 1
        assert "Failed to connect to GCS within 60 seconds" in stderr
        # By now the worker node has ended too, after the same time.
        nodes.kill("worker")
        nodes.start_head()
        nodes.start_worker()

    command = disturbed.start("--address", nodes.address)
    disturbed.wait_for_calls()
    disturbed.lose("head node, driver on it", restart)
    disturbed.require_the_same(disturbed.start("--address", nodes.address, "--resume").finish(150))
