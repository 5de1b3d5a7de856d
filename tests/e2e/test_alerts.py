"""Every alert fires in a real Prometheus when a run meets the fault that it is for."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml

from benchmarks.measuring.servers import free_port
from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from tests.paths import ROOT

if TYPE_CHECKING:
    from tests.commands import Gpo, Started
    from tests.configs import WriteConfig
    from tests.conftest import Until

BUDGET = 600
RULES = ROOT / "k8s" / "monitoring" / "rules.yaml"
# A step without a new prompt is a step without an improvement.
FAILING = Behaviour(latency_s=0.02, error_rate=0.4, malformed_rate=1.0)
CALM = Behaviour(latency_s=0.3, malformed_rate=1.0)
HASTY = Behaviour(latency_s=0.02, malformed_rate=1.0)
SILENT = Behaviour(hang_rate=1.0)
DURATIONS = {r"> 900": "> 4", r"\[10m\]": "[4s]", r"\[15m\]\) == 1": "[5m]) == 1"}
"""Shorter durations for ``GpoRunStalled`` and ``GpoRunVanished``; ``promtool`` tests the real ones."""


def _hasty_rules(folder: Path) -> Path:
    """The rules without ``for``, and with seconds instead of the quarter of an hour of ``GpoRunStalled``."""
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule.pop("for", None)
            if rule.get("alert") in ("GpoRunStalled", "GpoRunVanished"):
                for pattern, shorter in DURATIONS.items():
                    rule["expr"] = re.sub(pattern, shorter, rule["expr"])
    path = folder / "rules.yaml"
    path.write_text(yaml.safe_dump(rules), encoding="utf-8")
    return path


def _alerts() -> set[str]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}


@contextmanager
def _prometheus(folder: Path, targets: Path) -> Iterator[Callable[[], set[str]]]:
    """A Prometheus with the hasty rules; yields a function that returns the firing alerts."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("needs the program prometheus")
    address = f"127.0.0.1:{free_port()}"
    targets.mkdir(parents=True)
    found = {"job_name": "gpo", "file_sd_configs": [{"files": [f"{targets}/*.json"], "refresh_interval": "1s"}]}
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(_hasty_rules(folder))],
        "scrape_configs": [found],
    }
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    arguments = [f"--config.file={path}", f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={address}"]

    def firing() -> set[str]:
        query = urlencode({"query": 'ALERTS{alertstate="firing"}'})
        try:
            with urlopen(f"http://{address}/api/v1/query?{query}") as reply:
                return {row["metric"]["alertname"] for row in json.load(reply)["data"]["result"]}
        except OSError:
            return set()  # it is starting

    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([program, *arguments], stdout=log, stderr=log)
        try:
            yield firing
        finally:
            process.terminate()
            process.wait()


def _processes(command: Started, name: str) -> list[int]:
    found = []
    for number in command.numbers():
        with suppress(OSError):
            if Path(f"/proc/{number}/cmdline").read_bytes().startswith(f"ray::{name}".encode()):
                found.append(number)
    return found


def _num_steps(folder: Path) -> int:
    path = folder / "results" / "steps.jsonl"
    return len(path.read_bytes().splitlines()) if path.exists() else 0


def _num_answered(endpoint: SimulatedEndpoint) -> int:
    return sum(call.status == 200 and call.path == "/v1/chat/completions" for call in endpoint.requests)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_alert_fires_when_its_fault_occurs(
    endpoint: SimulatedEndpoint, gpo: Gpo, write_config: WriteConfig, tmp_path: Path, until: Until
) -> None:
    endpoint.behaviour = FAILING
    config = write_config(
        tmp_path,
        endpoint.base_url,
        run={"seeds": [0]},
        models={"task": {"max_attempts": 50}, "optimizer": {"max_attempts": 50}},
        optimizer={"steps": 1000, "candidates": 3},
        cluster={"actor_restarts": 20},
        metrics={"port": 0},
        budget={"calls": BUDGET},
    )
    fired: set[str] = set()
    with _prometheus(tmp_path, tmp_path / "home" / "gpo" / "monitoring" / "targets") as firing:
        home = {"XDG_CACHE_HOME": str(tmp_path / "home")}
        command = gpo.start("run", config, "--run-dir", "results", cwd=tmp_path, env=home)

        def await_alerts(*names: str) -> None:
            until(lambda: set(names) <= firing(), f"firing: {', '.join(names)}")
            fired.update(firing())

        await_alerts("GpoEndpointFailing", "GpoNoImprovement")

        endpoint.behaviour = CALM
        for _ in range(4):
            known = _num_steps(tmp_path)
            until(lambda known=known: _num_steps(tmp_path) > known, "a step is taken")
            (actor,) = _processes(command, "TrajectoryActor")
            os.kill(actor, signal.SIGKILL)
        await_alerts("GpoActorRestartLoop")

        os.kill(command.process.pid, signal.SIGSTOP)  # the driver answers the scrapes
        await_alerts("GpoExporterDown")
        os.kill(command.process.pid, signal.SIGCONT)

        endpoint.behaviour = HASTY
        until(lambda: _num_answered(endpoint) > 0.9 * BUDGET, "nine tenths of the budget are spent")
        endpoint.behaviour = SILENT
        await_alerts("GpoBudgetNearlySpent", "GpoRunStalled")

        os.kill(command.process.pid, signal.SIGKILL)
        await_alerts("GpoRunVanished")
    assert fired == _alerts()
