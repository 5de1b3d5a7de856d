from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.request import urlopen

import pytest
import ray

from actors.limiter import LimiterActor
from actors.metrics.exporter import exporter_actor
from benchmarks.measuring.servers import free_port
from cluster.config.observability import MetricsConfig
from cluster.monitoring import run_metrics
from cluster.monitoring.run_metrics import Metrics, exported
from cluster.monitoring.targets import targets_folder
from cluster.session.ray_connection import ray_connection
from gpo.errors import ConfigError
from gpo.limits.messages import Pool
from gpo.models import events
from gpo.models.events import Outcome
from tests.waiting import wait_until

_POOL = Pool("http://nowhere", "m", 1, 1, role="task")
_COUNTED = {
    "ended": 'gpo_model_requests_total{.*outcome="cancelled".*',
    "under way": "gpo_model_requests_in_flight{.*",
    "alive": 'gpo_actors{actor="evaluator".*',
    "deaths": 'gpo_actor_deaths_total{actor="evaluator".*',
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with ray_connection("local", cpus_needed=2):
        yield


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(run_metrics, "_EVERY_S", 0.05)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


class Calling:
    """A process that calls models."""

    def __init__(self, start_recording: Callable[[], Callable[[], object]]) -> None:
        self._end = start_recording()

    def call(self, number: int) -> None:
        """Leave one request under way, and end ``number`` others."""
        observer = events._observer
        for index in range(number + 1):
            observer.request_queued(_POOL, "t/0")
            observer.request_started(_POOL, "t/0", 0.0, is_retry=False)
            if index:
                observer.request_ended(_POOL, "t/0", Outcome.CANCELLED, 0.1, None)

    def end(self) -> None:
        self._end()


def _calling(metrics: Metrics) -> Any:
    return ray.remote(Calling).options(num_cpus=0).remote(metrics.recorder_for("evaluator"))


def _scrape(port: int) -> dict[str, float]:
    with urlopen(f"http://127.0.0.1:{port}/metrics") as reply:
        text = reply.read().decode()
    return {
        name: sum(float(value) for value in re.findall(rf"^{series} (\S+)$", text, re.MULTILINE))
        for name, series in _COUNTED.items()
    }


def _runs(port: int) -> set[str]:
    """The runs that a scrape finds."""
    with urlopen(f"http://127.0.0.1:{port}/metrics") as reply:
        text = reply.read().decode()
    return set(re.findall(r'^gpo_actors\{.*run="([^"]*)"', text, re.MULTILINE))


def _restart(actor: Any) -> None:
    """Kill the actor, and wait until Ray has restarted it: until then it may still answer, or not at all."""

    def pid() -> int:
        return int(ray.get(actor.__ray_call__.remote(lambda _: os.getpid())))

    def is_another() -> bool:
        with suppress(ray.exceptions.RayActorError):
            return pid() != before
        return False

    before = pid()
    ray.kill(actor, no_restart=False)
    wait_until(is_another)


def test_no_counter_falls_when_a_process_the_limiter_or_the_exporter_dies(cluster: None) -> None:
    config = MetricsConfig(port=free_port(), linger_s=0)
    assert config.port is not None
    port = config.port
    metrics = Metrics(config, "r", is_alone=False)
    limiter = LimiterActor().start()
    with closing(metrics):
        metrics.start()
        metrics.ready()
        victim, other, ending = (_calling(metrics) for _ in range(3))
        ray.get([victim.call.remote(3), other.call.remote(4), ending.call.remote(2)])
        wait_until(lambda: _scrape(port) == {"ended": 9, "under way": 3, "alive": 3, "deaths": 0})
        ray.get(ending.end.remote())
        ray.kill(ending)
        ray.kill(victim)
        left = {"ended": 9, "under way": 1, "alive": 1, "deaths": 1}
        wait_until(lambda: _scrape(port) == left)

        _restart(limiter._actor)
        for _ in range(10):
            assert _scrape(port) == left
            time.sleep(0.05)
        _restart(exporter_actor("127.0.0.1", port, ""))
        wait_until(lambda: _runs(port) == {"r"})
        assert _scrape(port) == left
        # Both have learned the rest again from who is left.
        ray.get(other.call.remote(5))
        metrics.finish()
        assert _scrape(port) == {"ended": 14, "under way": 2, "alive": 1, "deaths": 1}
    assert _runs(port) == set()


def test_an_exporter_runs_as_long_as_a_run_needs_it(cluster: None) -> None:
    config = MetricsConfig(port=free_port(), linger_s=0)
    assert config.port is not None
    port = config.port
    owner, guest = (Metrics(config, run, is_alone=False) for run in ("owner", "guest"))
    try:
        for metrics in (owner, guest):
            metrics.start()
            metrics.ready()
        assert _runs(port) == {"owner", "guest"}
        # It ends with the run that made it, and the other run makes another at the same port.
        owner.close()
        wait_until(lambda: _runs(port) == {"guest"})
        guest.finish()
        # The first exporter may have answered just now while it ended.
        wait_until(lambda: _runs(port) == {"guest"})
    finally:
        owner.close()
        guest.close()
    assert list(targets_folder().iterdir()) == []


def test_an_address_that_is_taken_is_a_configuration_error(cluster: None) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = MetricsConfig(port=taken.getsockname()[1])
        with (
            pytest.raises(ConfigError, match=r"in use.*name another"),
            exported(config, "r", is_alone=False) as metrics,
        ):
            metrics.ready()


def test_a_run_with_its_own_cluster_answers_in_its_driver(cluster: None) -> None:
    config = MetricsConfig(port=free_port(), linger_s=3600)
    assert config.port is not None
    with exported(config, "alone", is_alone=True) as metrics:
        metrics.ready()
        assert _runs(config.port) == {"alone"}
        with pytest.raises(ValueError, match="Failed to look up"):
            ray.get_actor(f"metrics-127.0.0.1-{config.port}", namespace="gpo")
        # At its end it waits for a scrape that sees the last values, and no longer.
        limiter = LimiterActor()
        # The one that an earlier test left behind may be found, and end before it replies.
        wait_until(lambda: limiter.start().newest_counts("", {}) == [])
        scraping = Thread(target=lambda: (time.sleep(0.5), _runs(config.port)))
        began = time.monotonic()
        scraping.start()
        metrics.finish()
        took_s = time.monotonic() - began
        scraping.join()
        assert took_s >= 0.5
    assert list(targets_folder().iterdir()) == []
    with pytest.raises(OSError, match="refused"):
        _runs(config.port)
    # The port is free again; a port that is not free is an error.
    with exported(config, "next", is_alone=True) as following:
        following.ready()
        with pytest.raises(ConfigError, match=r"in use.*name another"), exported(config, "late", is_alone=True):
            pass
        assert _runs(config.port) == {"next"}


def test_nothing_listens_if_only_a_gateway_is_configured() -> None:
    assert Metrics(MetricsConfig(pushgateway="http://127.0.0.1:9"), "r", is_alone=True)._exporter is None


@pytest.mark.parametrize(
    ("host", "is_alone", "kind"),
    [
        *((host, True, run_metrics._SharedExporter) for host in ("0.0.0.0", "::", "10.0.0.1", "cluster.example")),  # noqa: S104
        *((host, True, run_metrics._OwnExporter) for host in ("127.0.0.1", "localhost", "::1")),
        ("127.0.0.1", False, run_metrics._SharedExporter),
    ],
)
def test_untrusted_clients_never_reach_the_driver(host: str, is_alone: bool, kind: type) -> None:
    assert type(Metrics(MetricsConfig(port=0, host=host), "r", is_alone=is_alone)._exporter) is kind
