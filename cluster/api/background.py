"""A run on Ray that a thread of this process drives."""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401  # its function at the exit must be registered before ours
import contextvars
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass

from actors.folder import Folder
from cluster.api.handle import RunHandle, ended_run
from cluster.api.keywords import named_by_arguments
from cluster.api.optimize import checked_models
from cluster.api.progress import progress_view
from cluster.api.run import Run
from cluster.config import RunConfig
from cluster.runs.opening import Opening
from cluster.runs.run_folder import RunFolder
from cluster.session.interrupts import run_interruptibly, stoppable_by
from cluster.session.models import RefusedParameters
from cluster.session.ray_environment import prepare_environment, resolve_address
from gpo.errors import ConfigError
from gpo.events import OnEvent

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunOnRay:
    """What a thread runs: a new run, or the one in the folder.

    Attributes:
        address: of the cluster, as ``address_here`` returns it.
        run_id: of a new run.
    """

    config: RunConfig
    folder: Folder
    run_id: str
    address: str
    progress: bool
    on_event: OnEvent | None

    def execute(self, on_prepared: Callable[[], None]) -> None:
        """Run to the end.

        Args:
            on_prepared: called when all mistakes that are found before Ray starts would have been found.

        Raises:
            ConfigError, GPOError, KeyboardInterrupt: as for ``cluster.runs.run.Run.execute``.
        """
        began = time.monotonic()
        opening = Opening(self.config, RunFolder(self.folder), log.info)
        with progress_view(self.progress) as view:

            def checked() -> RefusedParameters:
                return run_interruptibly(checked_models(opening.config, opening.tasks, view))

            refused = checked() if opening.is_new else {}
            with opening.opened(self.run_id, began) as opened:
                if opened.record.is_complete:
                    opened.loop(self.on_event).conclude()
                    return
                if opened.needs_check:
                    refused = checked()
                on_prepared()
                opened.execute_on_ray(self.address, view, refused, self.on_event)


class BackgroundRun(RunHandle):
    """A run that a thread of this process drives. When the program ends before the run, the run is stopped.

    Args:
        has_configuration: see ``named_by_arguments``.
    """

    def __init__(self, run: RunOnRay, *, has_configuration: bool) -> None:
        super().__init__(run.folder)
        self._run, self._has_configuration = run, has_configuration
        self._stop = threading.Event()
        self._prepared, self._ended = Future[None](), Future[None]()
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._work,), name="cluster.launch", daemon=True)

    def start(self) -> None:
        """Start the thread; returns when the configuration, the data and the models are checked.

        Raises:
            ConfigError, GPOError: the run cannot start.
        """
        _end_with_the_program(self)
        self._thread.start()
        try:
            wait([self._prepared, self._ended], return_when=FIRST_COMPLETED)
        except KeyboardInterrupt:
            self.stop()
            raise
        if not self._prepared.done():
            self._ended.result()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the run has ended; see ``RunHandle.wait``. Ctrl-C ends the wait, and not the run."""
        wait([self._ended], timeout)
        return self._ended.done()

    def stop(self) -> None:
        """Ask the run to end within some seconds, with its work saved; does not wait for that."""
        self._stop.set()

    def result(self) -> Run:
        """Wait until the run has ended; its results. See ``RunHandle.result``.

        Raises:
            GPOError: what ended the run, if it failed.
        """
        self._ended.result()
        return ended_run(self._folder)

    def end(self) -> None:
        """Stop the run and wait for its end."""
        if self._thread.is_alive():
            log.warning("the program ends, so the run in %s is stopped; finished work is saved", self.run_dir)
            self.stop()
            wait([self._ended])

    def _work(self) -> None:
        try:
            with named_by_arguments(has_configuration=self._has_configuration), stoppable_by(self._stop):
                self._run.execute(lambda: self._prepared.set_result(None))
        except KeyboardInterrupt:
            log.info("the run in %s was stopped; finished work is saved", self.run_dir)
            self._ended.set_result(None)
        except BaseException as error:
            self._ended.set_exception(error)
        else:
            self._ended.set_result(None)
        finally:
            _working.discard(self)


_working: set[BackgroundRun] = set()


def _end_with_the_program(run: BackgroundRun) -> None:
    if not _working:
        # Called before all executors end, which runs need to their ends; ``atexit`` would be too late.
        threading._register_atexit(_end_all)  # type: ignore[attr-defined]
    _working.add(run)


def _end_all() -> None:
    for run in tuple(_working):
        run.end()


def address_here(address: str | None) -> str:
    """The cluster that a run in this process uses: the one that the process is connected to, or as ``gpo run`` does.

    Raises:
        ConfigError: the address cannot be used.
    """
    ray = sys.modules.get("ray")
    if (
        ray is not None and hasattr(ray, "is_initialized") and ray.is_initialized()
    ):  # another thread may be importing it
        from cluster.session.ray_connection import connected_address, require_here

        if address is not None:
            require_here(address)
        return address or connected_address()
    resolved = resolve_address(address)
    if resolved == "local" and ray is not None and "RAY_AUTH_MODE" not in os.environ:
        raise ConfigError(
            "address",
            "Ray was imported already, and the token of a cluster that is started here must be made before that",
            "import ray after the launch, or call ray.init first, or set RAY_AUTH_MODE before the program starts",
        )
    prepare_environment(resolved)
    return resolved
