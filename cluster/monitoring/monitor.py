"""``gpo monitor``: runs a Prometheus that scrapes the runs on this machine."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import yaml

from cluster.monitoring.targets import targets_folder, withdraw_dead
from gpo.cache.store import cache_folder
from gpo.errors import ClusterError, ConfigError
from gpo.sockets import bound_socket
from gpo.text import last_line

_MONITORING = Path(__file__).resolve().parents[2] / "k8s" / "monitoring"
DASHBOARDS = _MONITORING / "dashboards"
_RULES = _MONITORING / "rules.yaml"
_HOST = "127.0.0.1"
_SCRAPE_INTERVAL_S = 2
_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Server:
    """A Prometheus that is running.

    Attributes:
        url: its address.
    """

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def wait(self) -> None:
        """Wait until it ends.

        Raises:
            ClusterError: always, since it never ends by itself.
        """
        code = self.process.wait()
        raise ClusterError(f"Prometheus ended with code {code}: {_last_line(self.log)}")


def monitored_run(folder: Path) -> str:
    """The label ``run`` of the run or comparison in a folder.

    Raises:
        ConfigError: the folder holds neither.
    """
    for name in ("summary.json", "comparison.json"):
        try:
            return str(json.loads((folder / name).read_text(encoding="utf-8"))["run_id"])
        except (OSError, ValueError, LookupError, TypeError):
            continue
    raise ConfigError("RUN_DIR", f"{str(folder)!r} holds no run", "name the folder of a run, or no folder for all runs")


def scrape_config(run: str | None) -> dict[str, Any]:
    """The configuration of Prometheus: it finds runs by the files that they announce themselves with.

    Args:
        run: the run to scrape; ``None`` is all runs.
    """
    return {
        "global": {"scrape_interval": f"{_SCRAPE_INTERVAL_S}s", "evaluation_interval": f"{_SCRAPE_INTERVAL_S}s"},
        "rule_files": [str(_RULES)] if _RULES.exists() else [],
        "scrape_configs": [
            {
                "job_name": "gpo",
                "file_sd_configs": [
                    {"files": [str(targets_folder() / f"{run or '*'}.json")], "refresh_interval": "5s"},
                ],
            }
        ],
    }


@contextmanager
def prometheus(run: str | None, port: int) -> Iterator[Server]:
    """A Prometheus on loopback that ends with the context.

    Raises:
        ConfigError: the program is missing, or the port is taken.
        ClusterError: the program did not start.
    """
    program = shutil.which("prometheus")
    if program is None:
        raise ConfigError("prometheus", "is not on PATH", "install it: apt-get install prometheus")
    bound_socket(_HOST, port, remedy="choose another").close()  # a port that is taken is an error now
    folder = cache_folder() / "monitoring"
    try:
        targets_folder().mkdir(parents=True, exist_ok=True)
        withdraw_dead()
        config, log = folder / f"prometheus-{port}.yml", folder / f"prometheus-{port}.log"
        config.write_text(yaml.safe_dump(scrape_config(run)), encoding="utf-8")
        output = log.open("wb")
    except OSError as error:
        raise ConfigError(
            "XDG_CACHE_HOME", f"{str(folder)!r} cannot be written to ({error})", "name another folder"
        ) from None
    with output:
        process = subprocess.Popen(  # noqa: S603 - the program that the user has on PATH
            [
                program,
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / f'data-{port}'}",
                f"--web.listen-address={_HOST}:{port}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C ends it through this process
        )
    server = Server(f"http://{_HOST}:{port}", process, log)
    try:
        _await_ready(server)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_ready(server: Server) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not _is_ready(server.url):
        if server.process.poll() is not None or time.monotonic() > deadline:
            raise ClusterError(f"Prometheus did not start: {_last_line(server.log)}")
        time.sleep(0.1)


def _is_ready(url: str) -> bool:
    try:
        with urlopen(f"{url}/-/ready", timeout=2) as reply:  # noqa: S310 - the server started above
            return bool(reply.status == 200)
    except (URLError, OSError):
        return False


def _last_line(log: Path) -> str:
    return last_line(log.read_text(encoding="utf-8", errors="replace")) or "its log is empty"
