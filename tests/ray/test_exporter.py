from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.request import urlopen
from uuid import uuid4

import pytest
import ray

from actors.metrics.book import VALUE, Cell
from actors.metrics.catalogue import STEPS
from actors.metrics.exporter import exporter
from actors.metrics.recording import Ledger, node_folder
from benchmarks.measuring.servers import free_port
from cluster.config.observability import MetricsConfig
from cluster.metrics.exporting import OwnExporter, SharedExporter, exporting
from cluster.metrics.run_metrics import Metrics, exported
from cluster.metrics.targets import targets_folder
from cluster.session.ray_session import ray_session
from gpo.errors import ConfigError


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with ray_session("local", cpus_needed=2):
        yield


class Counting:
    def __init__(self, ledger: Ledger) -> None:
        self._book = ledger.book("trajectories")

    def count(self, number: int) -> None:
        self._book.count(STEPS, "r", "t", "0").add(number)


def _steps(port: int) -> list[str]:
    with urlopen(f"http://127.0.0.1:{port}/metrics") as reply:
        lines = reply.read().decode().splitlines()
    return [line.rpartition(" ")[2] for line in lines if line.startswith("gpo_steps_total{")]


def test_what_the_dead_counted_is_told_also_by_an_exporter_that_was_started_anew(cluster: None) -> None:
    ledger = Ledger("r", f"gpo-metrics-{uuid4().hex}")
    counting: Any = ray.remote(Counting).options(num_cpus=0).remote(ledger)
    ray.get(counting.count.remote(3))
    telling = exporter("127.0.0.1", 0, ledger.name)
    port = ray.get(telling.serve.remote("127.0.0.1", 0))
    assert _steps(port) == []
    told = ray.get(telling.watch.remote(ledger.name, {}))
    assert _steps(port) == ["3.0"]
    assert told == {}  # by other nodes

    ray.kill(counting)
    assert _steps(port) == ["3.0"]
    assert ray.get(telling.finish.remote(ledger.name)) == 3
    assert _steps(port) == ["3.0"]
    assert ray.get(telling.scrapes.remote()) == 4

    _restart(telling)
    again = exporter("127.0.0.1", 0, ledger.name)
    again.watch.remote(ledger.name, {})
    port = ray.get(again.serve.remote("127.0.0.1", 0))
    assert _steps(port) == ["3.0"]
    ray.get(again.forget.remote(ledger.name))
    assert _steps(port) == []
    assert not node_folder(ledger.name).exists()


def test_an_exporter_lives_as_long_as_a_run_needs_it(
    cluster: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("cluster.metrics.run_metrics._LOOK_EVERY_S", 0.05)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    port = free_port()
    config = MetricsConfig(port=port, linger_s=0)
    owner, guest = (Metrics(config, run, is_alone=False) for run in ("owner", "guest"))
    try:
        for metrics in (owner, guest):
            metrics.start()
            metrics.ready()
        _await_runs(port, {"owner", "guest"})
        # However often the two look after it, it goes on.
        for _ in range(40):
            assert _runs(port) == {"owner", "guest"}
            time.sleep(0.025)
        # Where it dies, it comes back at the same port, and knows of nodes that were lost before.
        telling = exporter("127.0.0.1", port, "")
        assert guest._ledger is not None
        assert isinstance(guest._exporter, SharedExporter)
        gone = {"a-node": {Cell(STEPS.name, VALUE, ("guest", "t", "0")): 4.0}}
        assert ray.get(telling.watch.remote(guest._ledger.name, gone)) == gone
        assert _steps(port) == ["4.0"]
        _await(lambda: guest._exporter._told == gone)
        _restart(telling)
        _await_runs(port, {"owner", "guest"})
        assert _steps(port) == ["4.0"]
        # It ends with the one that had made it, and the other one makes another.
        owner.close()
        _await_runs(port, {"guest"})
        assert _steps(port) == ["4.0"]
        guest.finish()
        assert _runs(port) == {"guest"}
        assert _steps(port) == ["4.0"]
    finally:
        owner.close()
        guest.close()
    assert list(targets_folder().iterdir()) == []


def _restart(actor: Any) -> None:
    """Kill the actor, and wait until it has been started anew: until then it may still answer, or not at all."""
    before = _pid(actor)
    ray.kill(actor, no_restart=False)

    def is_another() -> bool:
        with suppress(ray.exceptions.RayActorError):
            return _pid(actor) != before
        return False

    _await(is_another)


def _pid(actor: Any) -> int:
    return int(ray.get(actor.__ray_call__.remote(lambda _: os.getpid())))


def _await_runs(port: int, wanted: set[str]) -> None:
    _await(lambda: _runs(port) == wanted)


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while True:
        with suppress(OSError):
            if condition():
                return
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(port: int) -> set[str]:
    """The runs that a scrape tells of."""
    with urlopen(f"http://127.0.0.1:{port}/metrics") as reply:
        text = reply.read().decode()
    return set(re.findall(r'^gpo_actors\{.*run="([^"]*)"', text, re.MULTILINE))


def test_an_address_that_is_taken_is_said_to_be(cluster: None) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            ray.get(exporter("127.0.0.1", port, "gpo-metrics-x").serve.remote("127.0.0.1", port))


def test_a_run_that_shares_its_cluster_with_nobody_answers_itself(
    cluster: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = MetricsConfig(port=free_port(), linger_s=20)
    assert config.port is not None
    with exported(config, "alone", is_alone=True) as metrics:
        metrics.ready()
        assert _runs(config.port) == {"alone"}
        with pytest.raises(ValueError, match="Failed to look up"):
            ray.get_actor(f"metrics-127.0.0.1-{config.port}", namespace="gpo")
        # At its end it waits for a scrape that sees the last values, and no longer.
        scraping = Thread(target=lambda: (time.sleep(0.5), _runs(config.port)))
        began = time.monotonic()
        scraping.start()
        metrics.finish()
        took_s = time.monotonic() - began
        scraping.join()
        assert 0.5 <= took_s < 10
    assert list(targets_folder().iterdir()) == []
    with pytest.raises(OSError, match="refused"):
        _runs(config.port)
    # The port is free again; where it is not, that is said.
    with exported(config, "next", is_alone=True) as following:
        following.ready()
        with pytest.raises(ConfigError, match=r"in use.*name another"), exported(config, "late", is_alone=True):
            pass
        assert _runs(config.port) == {"next"}


def test_where_only_a_gateway_is_named_nothing_listens(cluster: None) -> None:
    config, name = MetricsConfig(pushgateway="http://127.0.0.1:9"), f"gpo-metrics-{uuid4().hex}"
    own, shared = (exporting(config, Ledger("r", name), is_alone=is_alone) for is_alone in (True, False))
    assert isinstance(own, OwnExporter)
    for telling in (own, shared):
        telling.ask()
        assert telling.port(30) is None
    assert own._exporter._server is None
    actor = exporter("127.0.0.1", 0, name)
    assert ray.get(actor.__ray_call__.remote(lambda exporter: exporter._server is None))
    own.close()
    shared.close()


def test_who_can_be_reached_by_strangers_is_not_the_driver() -> None:
    ledger = Ledger("r", "gpo-metrics")
    for host in ("0.0.0.0", "::", "10.0.0.1", "cluster.example"):  # noqa: S104
        assert isinstance(exporting(MetricsConfig(port=0, host=host), ledger, is_alone=True), SharedExporter)
    for host in ("127.0.0.1", "localhost", "::1"):
        assert isinstance(exporting(MetricsConfig(port=0, host=host), ledger, is_alone=True), OwnExporter)
        assert isinstance(exporting(MetricsConfig(port=0, host=host), ledger, is_alone=False), SharedExporter)
