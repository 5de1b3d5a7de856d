from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.limiter import LimiterActor
from benchmarks.measuring.servers import free_port
from cluster.config.observability import MetricsConfig
from cluster.monitoring.run_metrics import Metrics
from tests.ray.test_exporter import Calling, _scrape

if TYPE_CHECKING:
    from tests.conftest import Until

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    running = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    ray.init(address=running.address, log_to_driver=False)
    yield running
    ray.shutdown()
    running.shutdown()


def test_counts_outlive_their_node_and_the_limiter_and_exporter_after_it(
    cluster: Cluster, until: Until, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("cluster.monitoring.run_metrics._EVERY_S", 0.2)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = MetricsConfig(port=free_port(), linger_s=0)
    assert config.port is not None
    port = config.port
    lost, stays = cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)
    metrics = Metrics(config, "r", is_alone=False)
    limiter = LimiterActor().start()
    with closing(metrics):
        metrics.start()
        metrics.ready()
        calling = [_calling(metrics, node.node_id) for node in (lost, stays)]
        ray.get([one.call.remote(90) for one in calling])
        both = {"ended": 180.0, "under way": 2.0, "alive": 2.0, "deaths": 0.0}
        until(lambda: _scrape(port) == both, "both nodes are counted")
        cluster.remove_node(lost, allow_graceful=False)
        one = {"ended": 180.0, "under way": 1.0, "alive": 1.0, "deaths": 1.0}
        until(lambda: _scrape(port) == one, "the process of the lost node is counted as dead")
        ray.get(calling[1].call.remote(5))
        after = {"ended": 185.0, "under way": 2.0, "alive": 1.0, "deaths": 1.0}
        until(lambda: _scrape(port) == after, "the other node is counted")

        assert metrics._exporter is not None
        for actor in (limiter._actor, metrics._exporter._actor):  # type: ignore[attr-defined]
            ray.kill(actor, no_restart=False)
        seen: list[dict[str, float]] = []
        until(lambda: _saw(seen, port) == 20, "the exporter is back")
        assert seen == [after] * 20
        metrics.finish()
        assert _scrape(port) == after


def _calling(metrics: Metrics, node: str) -> Any:
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(Calling).options(num_cpus=0, scheduling_strategy=there).remote(metrics.recorder_for("evaluator"))  # type: ignore[attr-defined]


def _saw(seen: list[dict[str, float]], port: int) -> int:
    """Scrape once more; the number of scrapes that found the run."""
    with suppress(OSError):
        if any((scrape := _scrape(port)).values()):
            seen.append(scrape)
    return len(seen)
