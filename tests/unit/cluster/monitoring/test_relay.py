from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from threading import Thread
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry, Gauge

from actors.metrics.scrape_server import ScrapeServer
from cluster.monitoring.relay import relay


@contextmanager
def served(server: ThreadingHTTPServer) -> Iterator[str]:
    """The address of a server that answers in a thread."""
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def scraped(url: str) -> tuple[int, str, str]:
    with urlopen(f"{url}/metrics", timeout=30) as answer:  # noqa: S310
        return answer.status, answer.headers["Content-Type"], answer.read().decode()


def test_scrapes_are_answered_before_during_and_after_a_run() -> None:
    port, registry = free_port(), CollectorRegistry()
    Gauge("gpo_run_active", "help", registry=registry).set(1)
    with served(relay(0, port, "127.0.0.1")) as url:
        status, kind, page = scraped(url)
        assert (status, page) == (200, "# no run is working\n")
        assert kind.startswith("text/plain; version=")
        exporter = ScrapeServer("127.0.0.1", port, registry)
        try:
            assert "gpo_run_active 1.0\n" in scraped(url)[2]
            assert exporter.answered >= 1, "a run that ends waits for such a scrape"
        finally:
            exporter.close()
        assert scraped(url)[2] == "# no run is working\n"


def test_an_exporter_that_fails_makes_the_target_fail() -> None:
    with served(relay(0, 1, "127.0.0.1")) as broken, pytest.raises(HTTPError, match="404"):
        urlopen(f"{broken}/other", timeout=30)  # noqa: S310
    with socket.create_server(("127.0.0.1", 0)) as deaf:

        def hang_up() -> None:
            deaf.accept()[0].close()

        thread = Thread(target=hang_up)
        thread.start()
        with served(relay(0, int(deaf.getsockname()[1]), "127.0.0.1")) as url, pytest.raises(HTTPError, match="502"):
            scraped(url)
        thread.join()
