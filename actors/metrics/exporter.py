"""The exporter, which a Prometheus scrapes: one actor on the head node, with relays for the books of the other nodes.

A run with a Ray cluster and a loopback address of its own has an ``Exporter`` in its
process (``cluster.metrics.exporting``).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from threading import Lock
from typing import Any

import ray
from prometheus_client import CollectorRegistry, push_to_gateway
from prometheus_client import Metric as Family
from prometheus_client.registry import Collector
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.metrics.book import pages
from actors.metrics.elsewhere import Elsewhere, SilentNodeError
from actors.metrics.recording import node_folder
from actors.metrics.scrape_server import ScrapeServer
from actors.metrics.tally import Tally, families, tally, total

_RELAY_TIMEOUT_S = 3.0
_FAREWELL_S = 20.0
_NAMESPACE = "gpo"
_HEAD = {"node:__internal_head__": 0.001}
_PUSH_JOB = "gpo"


class Relay:
    """Reads the books of the node that it runs on."""

    def read(self, name: str) -> Tally:
        """What the node's processes counted, dead ones included."""
        return tally(pages(node_folder(name)))

    def remove(self, name: str) -> None:
        """Forget the node's books."""
        folder = node_folder(name)
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # another node's books may be beside them
            folder.parent.rmdir()


class Exporter:
    """Answers scrapes with what the processes of all runs that it watches have counted.

    It counts nothing itself. One that died and was started anew tells the same as before, as soon as it watches again
    and the nodes have answered; what is known of a lost one is handed to it by who has it watch.
    """

    def __init__(self) -> None:
        self._here = Relay()
        self._relays: dict[str, Any] = {}
        self._runs: set[str] = set()
        self._finished: dict[str, Tally] = {}
        self._elsewhere: dict[str, Elsewhere] = {}
        self._server: ScrapeServer | None = None
        self._lock, self._serving = Lock(), Lock()
        self._registry = CollectorRegistry()
        self._registry.register(_Scrape(self.numbers))

    def serve(self, host: str, port: int) -> int:
        """Answer scrapes here; the port, which is a free one where 0 is asked for. A second time changes nothing.

        Raises:
            OSError: the address cannot be listened on.
        """
        with self._serving:
            if self._server is None:
                self._server = ScrapeServer(host, port, self._registry)
            return self._server.port

    def stop(self) -> None:
        """Answer no more scrapes."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def watch(self, name: str, told: Mapping[str, Tally]) -> dict[str, Tally]:
        """Tell of a run from now on.

        Args:
            name: of its ledger.
            told: what this returned when it was asked last, by whichever exporter; at first, nothing.

        Returns:
            Node → what it told last, lost ones included.
        """
        elsewhere = self._elsewhere.setdefault(name, Elsewhere())
        elsewhere.recall(told)
        self._runs.add(name)
        return elsewhere.told()

    def finish(self, name: str) -> int:
        """The run is over: what has been counted by now is what is told of it.

        Returns:
            The number of scrapes that have begun so far; later ones see this.

        Raises:
            SilentNodeError: a node does not tell.
        """
        deadline = time.monotonic() + _FAREWELL_S
        while True:
            try:
                with self._lock:
                    self._finished[name] = self._read(name)
                return 0 if self._server is None else self._server.begun
            except SilentNodeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def scrapes(self) -> int:
        """The number of the last scrape that was answered."""
        return 0 if self._server is None else self._server.answered

    def push(self, name: str, run: str, gateway: str) -> None:
        """Leave what was counted with a Pushgateway, in place of what was left there for the run before.

        Raises:
            OSError: the gateway does not take it.
        """
        push(self.numbers([name]), run, gateway)

    def forget(self, name: str) -> None:
        """Tell no more of a run, and remove its books."""
        with self._lock:
            self._runs.discard(name)
            self._finished.pop(name, None)
            self._elsewhere.pop(name, None)
            removed = [relay.remove.remote(name) for relay in self._relays.values()]
        self._here.remove(name)
        with suppress(RayError):
            ray.get(removed, timeout=_RELAY_TIMEOUT_S)

    def numbers(self, names: Iterable[str] | None = None) -> Tally:
        """What was counted of these runs, or of all.

        Raises:
            SilentNodeError: a node has yet to tell what it told an exporter before this one.
        """
        with self._lock:
            wanted = sorted(self._runs if names is None else names)
            return total(self._finished[name] if name in self._finished else self._read(name) for name in wanted)

    def _read(self, name: str) -> Tally:
        """From all nodes."""
        relays = self._relays_elsewhere()
        elsewhere = self._elsewhere.setdefault(name, Elsewhere())
        asked = {relay.read.remote(name): node for node, relay in relays.items()}
        answered: list[Any] = []
        if asked:
            # All together: several that are out of reach hold up a scrape no longer than one.
            answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_RELAY_TIMEOUT_S)
        for reply in answered:
            with suppress(RayError):
                elsewhere.hear(asked[reply], ray.get(reply))
        return total([self._here.read(name), *elsewhere.tallies(relays.keys())])

    def _relays_elsewhere(self) -> dict[str, Any]:
        """Node → its relay, for each other node that is alive."""
        own = ray.get_runtime_context().get_node_id()
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        alive = {node["NodeID"] for node in nodes if node["Alive"]} - {own}
        for node in self._relays.keys() - alive:
            del self._relays[node]
        for node in alive - self._relays.keys():
            relay_class: Any = RelayActor
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            self._relays[node] = relay_class.options(
                num_cpus=0, max_restarts=-1, max_task_retries=1, scheduling_strategy=there
            ).remote()
        return self._relays


class _Scrape(Collector):
    """What ``prometheus_client`` asks at each scrape."""

    def __init__(self, numbers: Callable[[], Tally]) -> None:
        self._numbers = numbers

    def collect(self) -> Iterator[Family]:
        """All metrics, as they are now."""
        return families(self._numbers())


def push(numbers: Tally, run: str, gateway: str) -> None:
    """Leave these numbers with a Pushgateway, in place of those that were left for the run before.

    Raises:
        OSError: it does not take them.
    """
    registry = CollectorRegistry()
    registry.register(_Scrape(lambda: numbers))
    push_to_gateway(gateway, _PUSH_JOB, registry, grouping_key={"run": run})


RelayActor = ray.remote(Relay)
ExporterActor = ray.remote(Exporter)


def exporter(host: str, port: int, name: str) -> Any:
    """The exporter at an address: the one that all runs on the cluster share, or this run's own at a free port.

    Args:
        name: of the run's ledger.
    """
    actor_class: Any = ExporterActor
    shared = f"metrics-{host}-{port}" if port else f"metrics-{name}"
    return actor_class.options(
        name=shared, namespace=_NAMESPACE, get_if_exists=True, num_cpus=0, max_restarts=-1, max_concurrency=16,
        resources=_HEAD,
    ).remote()  # fmt: skip
