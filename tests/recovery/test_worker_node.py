from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ray.cluster_utils import Cluster

from benchmarks.simulated_endpoint import SimulatedEndpoint
from tests.recovery.conftest import Loss, now, repeated, results

if TYPE_CHECKING:
    from tests.commands import Gpo
    from tests.conftest import Until

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    # Without CPUs on the head node, all that reserves some is on the worker nodes.
    running = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield running
    running.shutdown()


def test_a_run_goes_on_when_the_node_of_all_its_actors_is_lost_and_replaced(
    endpoint: SimulatedEndpoint,
    undisturbed: dict[str, Any],
    cluster: Cluster,
    gpo: Gpo,
    write_long_config: Callable[[Path, str], Path],
    ray_token: Mapping[str, str],
    until: Until,
    tmp_path: Path,
) -> None:
    losses = []
    node = cluster.add_node(num_cpus=4)
    config = write_long_config(tmp_path / "lost", endpoint.base_url)
    command = gpo.start(
        "run", config, "--run-dir", "results", "--address", cluster.address, cwd=config.parent, env=ray_token
    )
    for answered in (100, 300):
        until(lambda answered=answered: len(endpoint.requests) > answered, "the run is under way")
        lost = now()
        cluster.remove_node(node, allow_graceful=False)
        node = cluster.add_node(num_cpus=4)
        losses.append(Loss("worker node", lost, now()))
    done = command.finish(240)
    assert done.code == 0, done.stderr
    assert results(config.parent / "results") == undisturbed
    assert repeated(endpoint.requests, losses) == []
    for loss in losses:
        loss.report(endpoint.requests)
