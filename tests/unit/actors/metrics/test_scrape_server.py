"""Whatever clients send to the port of the exporter, its process continues and prints nothing."""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import active_count
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from actors.metrics import scrape_server
from actors.metrics.scrape_server import ScrapeServer
from tests.waiting import wait_until


class Numbers(Collector):
    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault

    def collect(self) -> Iterator[Metric]:
        if self.fault is not None:
            raise self.fault
        yield GaugeMetricFamily("gpo_run_active", "Active.", value=1.0)


def _server(numbers: Numbers, host: str = "127.0.0.1") -> ScrapeServer:
    registry = CollectorRegistry(auto_describe=False)
    numbers.fault, fault = None, numbers.fault  # registering collects once
    registry.register(numbers)
    numbers.fault = fault
    return ScrapeServer(host, 0, registry)


def _scrape(server: ScrapeServer, host: str = "127.0.0.1") -> str:
    with urlopen(f"http://{host}:{server.port}/metrics") as reply:
        return str(reply.read().decode())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_scrapes_are_numbered(host: str) -> None:
    named = f"[{host}]" if ":" in host else host
    if ":" in host and not Path("/proc/net/if_inet6").exists():
        pytest.skip("needs IPv6")
    with closing(_server(Numbers(), host)) as server:
        for number in (1, 2):
            assert "gpo_run_active 1.0" in _scrape(server, named)
            assert (server.begun, server.answered) == (number, number)
        # Other paths and methods do not count as scrapes.
        urlopen(f"http://{named}:{server.port}/favicon.ico").close()
        urlopen(Request(f"http://{named}:{server.port}/metrics", method="OPTIONS")).close()
        assert (server.begun, server.answered) == (2, 2)
    with pytest.raises(OSError, match="refused"):
        _scrape(server, named)


def test_a_failed_scrape_is_a_503_and_one_line_in_the_log(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(_server(Numbers(RuntimeError("secret")))) as server:
        with pytest.raises(HTTPError) as refused:
            _scrape(server)
        assert (refused.value.code, refused.value.read()) == (503, b"the counts cannot be read now")
        assert server.answered == 0
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert capsys.readouterr().err == ""


def test_a_connection_that_breaks_or_is_silent_is_closed_without_a_log_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scrape_server._Handler, "timeout", 3.0)
    caplog.set_level(logging.INFO)
    with closing(_server(Numbers())) as server:
        before, address = active_count(), ("127.0.0.1", server.port)
        silent = [socket.create_connection(address) for _ in range(10)]
        with socket.create_connection(address) as broken:
            broken.sendall(b"GET /metr")
            broken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
        wait_until(lambda: active_count() >= before + 10)
        wait_until(lambda: active_count() == before)
        monkeypatch.undo()
        assert "gpo_run_active" in _scrape(server)
        for connection in silent:
            connection.close()
    assert capsys.readouterr().err == ""
    assert caplog.records == []


def test_an_answer_that_the_client_does_not_read_prints_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Much(Numbers):
        def collect(self) -> Iterator[Metric]:
            family = GaugeMetricFamily("gpo_much", "Much.", labels=["label"])
            for number in range(60_000):
                family.add_metric([f"{'x' * 150}{number}"], 1.0)
            yield family

    monkeypatch.setattr(scrape_server._Handler, "timeout", 0.2)
    with closing(_server(Much())) as server, socket.create_connection(("127.0.0.1", server.port)) as deaf:
        before = active_count()
        deaf.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: server.begun == 1)
        wait_until(lambda: active_count() <= before)
        assert server.answered == 0
    assert capsys.readouterr().err == ""


def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape_server, "_CONNECTIONS", 2)
    with closing(_server(Numbers())) as server:
        held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3)]
        held[2].settimeout(10)
        assert held[2].recv(1) == b""
        for connection in held:
            connection.close()
        wait_until(lambda: "gpo_run_active" in _scrape(server))
