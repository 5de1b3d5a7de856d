from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.metrics.catalogue import STEPS
from actors.metrics.exporter import exporter
from actors.metrics.recording import Ledger, Recorder
from benchmarks.measuring.ray_head import free_port
from cluster.config.metrics import MetricsConfig
from cluster.metrics.run_metrics import Metrics
from gpo.limits.messages import Pool

if TYPE_CHECKING:
    from tests.e2e.conftest import Until

pytestmark = pytest.mark.slow

_TOLD = ("gpo_steps_total", "gpo_model_requests_in_flight", "gpo_actor_deaths_total")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    running = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    ray.init(address=running.address, log_to_driver=False)
    yield running
    ray.shutdown()
    running.shutdown()


class Counting:
    def __init__(self, ledger: Ledger) -> None:
        self._book = ledger.book("evaluator")
        recorder = Recorder(self._book, ledger.run)
        recorder.request_queued(pool := Pool("http://nowhere", "m", 1, 1, role="task"), "t/0")
        recorder.request_started(pool, "t/0", 0.0, is_retry=False)
        self._book.count(STEPS, ledger.run, "t", "0").add(90)

    def count(self, number: int) -> None:
        self._book.count(STEPS, "r", "t", "0").add(number)


def test_counts_outlive_their_node_and_the_exporter_after_it(
    cluster: Cluster, until: Until, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("cluster.metrics.run_metrics._LOOK_EVERY_S", 0.2)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    port = free_port()
    lost, stays = cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)
    metrics = Metrics(MetricsConfig(port=port, linger_s=0), "r", is_alone=False)
    assert metrics._ledger is not None
    try:
        metrics.start()
        metrics.ready()
        counting = [_counting(metrics._ledger, node.node_id) for node in (lost, stays)]
        ray.get([one.count.remote(0) for one in counting])
        until(lambda: _scrape(port) == (180, 2, 0), "both nodes are told of")
        cluster.remove_node(lost, allow_graceful=False)
        until(lambda: _scrape(port) == (180, 1, 1), "the node's process is told to be dead")
        ray.get(counting[1].count.remote(5))
        until(lambda: _scrape(port) == (185, 1, 1), "the other node is told of")

        seen: list[tuple[float, ...]] = []
        ray.kill(exporter("127.0.0.1", port, ""), no_restart=False)
        until(lambda: _saw(seen, port) == 20, "the exporter is back")
        assert set(seen) == {(185, 1, 1)}
        metrics.finish()
        assert _scrape(port) == (185, 1, 1)
    finally:
        metrics.close()


def _counting(ledger: Ledger, node: str) -> Any:
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(Counting).options(num_cpus=0, scheduling_strategy=there).remote(ledger)  # type: ignore[attr-defined]


def _saw(seen: list[tuple[float, ...]], port: int) -> int:
    """Scrape once more; the number of scrapes that told of the run."""
    if numbers := _scrape(port):
        seen.append(numbers)
    return len(seen)


def _scrape(port: int) -> tuple[float, ...]:
    """Steps, requests under way and deaths; nothing where the scrape fails or does not tell of the run."""
    with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/metrics") as reply:
        text = reply.read().decode()
        if re.search(r"^gpo_actors\{", text, re.MULTILINE):
            return tuple(
                sum(float(value) for value in re.findall(rf"^{name}\{{.*\}} (\S+)$", text, re.MULTILINE))
                for name in _TOLD
            )
    return ()
