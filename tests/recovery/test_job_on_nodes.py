from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ray.cluster_utils import Cluster

from benchmarks.measuring.ray_head import free_port
from benchmarks.simulated_endpoint import SimulatedEndpoint
from tests.recovery.conftest import Loss, now, repeated, results

if TYPE_CHECKING:
    from tests.commands import Gpo
    from tests.conftest import Until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PORT = free_port()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    # As on a cluster where the program is installed: a job takes the `python` that it finds there.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    # The job's driver is on the head node; without CPUs there, all that reserves some is on the others.
    head = {"num_cpus": 0, "include_dashboard": True, "dashboard_port": PORT}
    running = Cluster(initialize_head=True, head_node_args=head)
    yield running
    running.shutdown()


def test_a_submitted_run_on_several_nodes_goes_on_when_one_of_them_is_lost(
    endpoint: SimulatedEndpoint,
    undisturbed: dict[str, Any],
    cluster: Cluster,
    gpo: Gpo,
    write_long_config: Callable[[Path, str], Path],
    ray_token: Mapping[str, str],
    until: Until,
    tmp_path: Path,
) -> None:
    # Two actors and two replicas: a node has room for two of the four.
    room = ("--set", "cluster.actor_cpus=0.4", "--set", "cluster.evaluator_cpus=0.4")
    nodes = [cluster.add_node(num_cpus=1) for _ in range(3)]
    work = tmp_path / "lost"
    places = {"run": {"dir": str(tmp_path / "runs")}, "cache": {"path": str(tmp_path / "completions.sqlite")}}
    write_long_config(work, endpoint.base_url, **places)
    address = f"http://127.0.0.1:{PORT}"
    command = gpo.start(
        "submit", "config.yaml", *room, "--run-id", "spread", "--follow", "--address", address, cwd=work, env=ray_token
    )
    until(lambda: len(endpoint.requests) > 100, "the run is under way")
    lost = now()
    cluster.remove_node(nodes[0], allow_graceful=False)
    loss = Loss("worker node", lost, now())
    done = command.finish(240)
    assert done.code == 0, done.stderr
    assert "step 2/5" in done.stdout
    assert results(tmp_path / "runs" / "spread") == undisturbed
    assert repeated(endpoint.requests, [loss]) == []
    loss.report(endpoint.requests)
