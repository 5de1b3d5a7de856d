"""Servers that benchmarks and tests start as separate processes: the simulated endpoint and a Ray cluster."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from urllib.error import URLError
from urllib.request import Request, urlopen

ROOT = Path(__file__).resolve().parents[2]
_MARK = "GPO_RAY_HEAD"
_START_TIMEOUT_S = 60.0


class EndpointProcess:
    """A context manager that runs the simulated endpoint as a separate process.

    Its CPU time is therefore not counted as that of the measured command.

    Args:
        access_log: emptied at the start; complete when the context ends.
        options: more options of ``benchmarks.simulated_endpoint``, such as ``--latency-ms 200``.

    Attributes:
        base_url: up to and including ``/v1``.
        pid: process ID.
    """

    def __init__(self, access_log: Path, *options: object) -> None:
        command = [sys.executable, "-m", "benchmarks.simulated_endpoint", "--port", "0"]
        self._command = [*command, "--access-log", str(access_log), *map(str, options)]
        self.base_url, self.pid = "", 0

    def __enter__(self) -> EndpointProcess:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(  # noqa: S603
            self._command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self._process.stdout is not None  # noqa: S101
        announcement = self._process.stdout.readline().split()
        if not announcement:
            raise RuntimeError(f"the simulated endpoint did not start (exit code {self._process.wait()})")
        self.base_url, self.pid = announcement[-1], self._process.pid
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()
        assert self._process.stdout is not None  # noqa: S101
        self._process.stdout.close()


class RayHead:
    """A context manager that runs a Ray cluster of one node: ``ray start --head`` on free ports, with a token.

    Args:
        cpus: number of CPUs that the node declares.
        variables: environment variables of its processes.

    Attributes:
        url: address of the dashboard.
        variables: environment variables that a client needs.
    """

    def __init__(self, cpus: int = 4, **variables: str) -> None:
        self._cpus, self._mark = cpus, secrets.token_hex(8)
        self._folder = Path(
            tempfile.mkdtemp(prefix="gpo-head-")
        )  # short, since Ray's socket paths have at most 107 characters
        token = secrets.token_hex(16)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "RAY_USAGE_STATS_ENABLED": "0"}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.variables = {**inherited, **auth, "PATH": path, "PYTHONPATH": str(ROOT)}
        self._environment = {**self.variables, **variables, _MARK: self._mark}
        self._command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--num-cpus={cpus}",
            "--node-ip-address=127.0.0.1", f"--port={free_port()}", f"--dashboard-port={port}",
            f"--dashboard-agent-listen-port={free_port()}", f"--metrics-export-port={free_port()}",
            f"--ray-client-server-port={free_port()}", f"--temp-dir={self._folder}",
        ]  # fmt: skip

    def __enter__(self) -> RayHead:
        with (self._folder / "start.log").open("w") as log:
            self._process = subprocess.Popen(  # noqa: S603
                self._command, cwd=ROOT, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + _START_TIMEOUT_S
        header = {"Authorization": f"Bearer {self.variables['RAY_AUTH_TOKEN']}"}
        while True:
            with suppress(URLError, OSError), urlopen(Request(f"{self.url}/api/jobs/", headers=header), timeout=5):  # noqa: S310
                return self
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.__exit__(None, None, None)
                raise RuntimeError("the Ray cluster did not start")
            time.sleep(0.2)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Kill all at once, since a regular stop takes half a minute.
        for number in self.processes():
            with suppress(OSError):
                os.kill(number, signal.SIGKILL)
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def processes(self, program: str = "") -> list[int]:
        """The IDs of its processes, or of those whose command line begins with ``program``."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                is_ours = f"{_MARK}={self._mark}".encode() in (folder / "environ").read_bytes()
                if is_ours and (folder / "cmdline").read_bytes().startswith(program.encode()):
                    found.append(int(folder.name))
        return found


def free_port() -> int:
    """A port that no process listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
