"""Handles of runs that work elsewhere: what is the same for all of them, and runs that are known by their folder."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from actors.folder import Folder
from cluster.api.keywords import named_by_arguments
from cluster.api.run import Run, folder_at
from cluster.results.status import RunStatus, run_status, status_document
from cluster.results.stored_run import RunReader
from cluster.runs.stop_file import request_stop
from gpo.errors import ClusterError, GPOError

_POLLED_EVERY_S = 1.0


class RunHandle:
    """A run that works in another thread, process or machine; ``launch`` and ``attach`` return one.

    Attributes:
        run_dir: path or URL of the run's folder.
    """

    def __init__(self, folder: Folder) -> None:
        self.run_dir = folder.path("").rstrip("/")
        self._folder, self._reader = folder, RunReader(folder)

    def status(self) -> dict[str, Any]:
        """What ``gpo status --json`` prints: state, steps, scores, spending, and seconds since the last change.

        Raises:
            ConfigError: the folder cannot be read.
        """
        return dict(status_document(self._status()))

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the run has ended, however it ended.

        Args:
            timeout: most seconds to wait.

        Returns:
            Whether it has ended.

        Raises:
            ConfigError: the folder cannot be read.
            ClusterError: the run shows no sign of life, so it will not end.
        """
        deadline = time.monotonic() + (math.inf if timeout is None else timeout)
        while True:
            status = self._status()
            if status.state == "silent":
                raise ClusterError(
                    f"the run in {self.run_dir} shows no sign of life: nothing has changed for {status.age_s:.0f} s, "
                    "so its process has probably died; continue it with the command or call that started it"
                )
            if not status.is_under_way:
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(_POLLED_EVERY_S, left))

    def stop(self) -> None:
        """Ask the run to end within some seconds, with its work saved; does not wait for that.

        Raises:
            ConfigError: the run has ended already, or its folder cannot be written.
        """
        with named_by_arguments():
            request_stop(self._folder)

    def result(self) -> Run:
        """Wait until the run has ended; its results. A run that was stopped has results, too.

        Raises:
            GPOError: the run failed.
            ConfigError, ClusterError: as for ``wait``.
        """
        self.wait()
        return ended_run(self._folder)

    def _status(self) -> RunStatus:
        with named_by_arguments():
            return run_status(self._reader.read(), time.time())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.run_dir!r})"


def attach(run_dir: str | Path) -> RunHandle:
    """A handle of a run that someone started: with a command, in another process, or on another machine.

    Args:
        run_dir: the run's folder, or a URL such as ``s3://BUCKET/PATH``.

    Raises:
        ConfigError: the folder holds no run, or cannot be read.
    """
    handle = RunHandle(folder_at(run_dir))
    handle.status()
    return handle


def ended_run(folder: Folder) -> Run:
    """The run in a folder, which has ended.

    Raises:
        GPOError: it failed.
        ConfigError: it cannot be read.
    """
    run = Run.open(folder.url)
    if run.status == "failed":
        reason = next(iter(run.errors.values()), "see the output of its process")
        raise GPOError(f"the run in {run.folder} failed: {reason}; gpo.Run.open reads what was saved")
    return run
