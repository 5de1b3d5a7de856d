from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from actors.metrics.catalogue import STEPS
from actors.metrics.exporter import push
from benchmarks.measuring.servers import free_port
from cluster.config.observability import MetricsConfig
from cluster.monitoring.monitor import monitored_run, prometheus
from cluster.monitoring.targets import announce, targets_folder, withdraw, withdraw_dead
from gpo.errors import ConfigError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def _names() -> set[str]:
    return {path.name for path in targets_folder().iterdir()}


def test_a_run_announces_its_address_while_it_lives() -> None:
    announce("mine", "127.0.0.1:1")
    announce("gone", "127.0.0.1:2")
    gone = targets_folder() / "gone.json"
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    gone.write_text(gone.read_text().replace(str(os.getpid()), ended.stdout.strip()))
    (targets_folder() / "damaged.json").write_text("[]")
    withdraw_dead()
    assert _names() == {"mine.json"}
    (group,) = json.loads((targets_folder() / "mine.json").read_text())
    assert group["targets"] == ["127.0.0.1:1"]
    assert group["labels"]["namespace"] == "local"
    withdraw("mine")
    withdraw("mine")
    assert _names() == set()


def test_the_run_of_a_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text('{"run_id": "triage-1"}')
    assert monitored_run(tmp_path) == "triage-1"
    (tmp_path / "summary.json").unlink()
    (tmp_path / "comparison.json").write_text('{"run_id": "triage-compare-1"}')
    assert monitored_run(tmp_path) == "triage-compare-1"
    (tmp_path / "comparison.json").write_text("{")
    with pytest.raises(ConfigError, match="holds no run"):
        monitored_run(tmp_path)


def test_the_error_without_prometheus_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="apt-get install prometheus"), prometheus(None, free_port()):
        pass


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Debian's package prometheus")
def test_a_port_in_use_is_a_configuration_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=str(port)), prometheus(None, port):
            pass


@pytest.mark.parametrize(
    ("options", "is_on"),
    [({}, False), ({"port": 0}, True), ({"port": 9464}, True), ({"pushgateway": "http://gateway:9091"}, True)],
)
def test_nothing_is_counted_without_a_port_or_a_gateway(options: dict[str, object], is_on: bool) -> None:
    assert MetricsConfig.model_validate(options).is_on is is_on


@pytest.mark.parametrize("address", ["gateway:9091", "http://user:secret@gateway", "ftp://gateway", "http://g w"])
def test_an_address_with_a_password_is_refused_and_not_shown(address: str) -> None:
    with pytest.raises(ValueError, match="without user or password") as raised:
        MetricsConfig.model_validate({"pushgateway": address})
    assert "secret" not in str(raised.value).partition("input_value")[0]


def _answers(url: str) -> bool:
    try:
        with urlopen(url):  # noqa: S310
            return True
    except OSError:
        return False


@pytest.fixture
def gateway() -> Iterator[str]:
    program = shutil.which("prometheus-pushgateway") or shutil.which("pushgateway")
    if program is None:
        pytest.skip("needs Debian's package prometheus-pushgateway")
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen([program, f"--web.listen-address={address}"], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while not _answers(f"http://{address}/-/ready"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait()


def test_a_pushgateway_gets_the_last_values(gateway: str) -> None:
    for value in (3.0, 5.0):
        push({(STEPS.name, ("r", "triage", "0")): (value,)}, "r", gateway)
    with urlopen(f"{gateway}/metrics") as reply:  # noqa: S310
        lines = [line for line in reply.read().decode().splitlines() if line.startswith("gpo_steps_total{")]
    (line,) = lines
    assert 'run="r"' in line
    assert line.endswith(" 5")
