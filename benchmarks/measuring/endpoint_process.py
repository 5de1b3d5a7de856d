"""The simulated endpoint as a process of its own, so that its work is not counted as that of what is measured."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]


class EndpointProcess:
    """A simulated endpoint, for as long as the context lasts.

    Args:
        access_log: emptied at the start, complete once the context has been left.
        options: further ones of ``benchmarks.simulated_endpoint``, such as ``--latency-ms 200``.

    Attributes:
        base_url: up to and including ``/v1``.
        pid: of the process.
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
        announced = self._process.stdout.readline().split()
        if not announced:
            raise RuntimeError(f"the simulated endpoint did not start (exit code {self._process.wait()})")
        self.base_url, self.pid = announced[-1], self._process.pid
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()
        assert self._process.stdout is not None  # noqa: S101
        self._process.stdout.close()
