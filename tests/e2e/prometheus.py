"""A real Prometheus started by ``gpo monitor``, and the queries of the dashboards and rules."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml

from benchmarks.measuring.servers import free_port
from tests.paths import ROOT

if TYPE_CHECKING:
    from tests.commands import Gpo
    from tests.conftest import Until

_MONITORING = ROOT / "k8s" / "monitoring"


class Prometheus:
    """Queries a Prometheus.

    Attributes:
        at: Unix time that queries are about; ``None`` is now.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.at: float | None = None

    def rows(self, query: str) -> list[dict[str, Any]]:
        asked = {"query": query} if self.at is None else {"query": query, "time": self.at}
        with urlopen(f"{self.url}/api/v1/query?{urlencode(asked)}") as reply:  # noqa: S310
            return list(json.load(reply)["data"]["result"])

    def ask(self, query: str) -> dict[tuple[str, ...], float]:
        """Label values, sorted by label name → value."""
        rows = self.rows(query)
        return {tuple(value for _, value in sorted(row["metric"].items())): float(row["value"][1]) for row in rows}

    def one(self, query: str) -> float:
        return next(iter(self.ask(query).values()), 0.0)

    def look_back(self) -> None:
        """From now on, query the time of the last scrape, since the series of an ended run are stale."""
        # One row for each address that the exporter had.
        self.at = max(row["values"][-1][0] for row in self.rows("gpo_run_active[10m]"))


@contextmanager
def monitored(gpo: Gpo, folder: Path, until: Until) -> Iterator[Prometheus]:
    """``gpo monitor`` for commands that run with ``home(folder)``; Ctrl-C ends it, and it leaves no process."""
    if shutil.which("prometheus") is None:
        pytest.skip("needs the program prometheus")
    port = free_port()
    command = gpo.start("monitor", "--port", port, cwd=folder, env=home(folder))
    until(lambda: _answers(port), "Prometheus answers")
    yield Prometheus(port)
    command.interrupt()
    finished = command.finish()
    assert "Interrupted" in finished.stderr
    assert not command.survivors()


def _answers(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/-/ready"):
            return True
    except OSError:
        return False


def home(folder: Path) -> Mapping[str, str]:
    """The environment of commands that ``gpo monitor`` finds together."""
    return {"XDG_CACHE_HOME": str(folder / "home")}


def queries() -> Iterator[str]:
    """Every query of the panels, with all values of the variables, and of the recording rules."""
    for path in sorted((_MONITORING / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            for target in panel.get("targets", []):
                named = re.sub(r"\$(namespace|run|task)", ".*", target["expr"])
                yield re.sub(r"\$__(rate_)?interval", "1m", named)
    for group in yaml.safe_load((_MONITORING / "rules.yaml").read_text(encoding="utf-8"))["groups"]:
        yield from (rule["record"] for rule in group["rules"] if "record" in rule)


def is_of_sweeps(query: str) -> bool:
    """Whether only a sweep has data for the query."""
    return re.search("gpo_trials|gpo_sweep", query) is not None
