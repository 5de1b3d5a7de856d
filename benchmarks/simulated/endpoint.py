"""The simulated endpoint as a running server: in an event loop, or in a thread of a test."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Any, TypeVar

from aiohttp import web

from benchmarks.simulated.service import AccessRecord, Behaviour, Service

try:
    import uvloop
except ImportError:
    _new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:
    _new_loop = uvloop.new_event_loop

_T = TypeVar("_T")

_BACKLOG = 4096
_SHUTDOWN_S = 0.2
"""Time that pending replies get when the server stops."""


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine, on uvloop if it is installed."""
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(main)


async def serve(
    service: Service, host: str, port: int, *, announce: Callable[[str], None], stop: asyncio.Event
) -> None:
    """Serve until ``stop`` is set.

    Args:
        port: 0 picks a free port.
        announce: called with the base URL as soon as the server answers requests.

    Raises:
        OSError: the server cannot listen on the address.
    """
    # Cancel a request when its client disconnects; otherwise a hanging request would stay in flight for ever.
    server = web.Server(service.handle, handler_cancellation=True, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=_BACKLOG).start()
        announce(f"http://{host}:{runner.addresses[0][1]}/v1")
        await stop.wait()
    finally:
        await runner.cleanup()


def json_lines_log(path: Path, files: ExitStack) -> Callable[[AccessRecord], None]:
    """Empty the file and return a function that appends a record to it as a line of JSON; ``files`` closes the file.

    Every line is written immediately, so the file is complete even if the server is killed.
    """
    file = files.enter_context(path.open("wb", buffering=0))
    names = [field.name for field in fields(AccessRecord)]

    def write(record: AccessRecord) -> None:
        # Faster than ``asdict``, which copies every value.
        line = json.dumps({name: getattr(record, name) for name in names})
        file.write(f"{line}\n".encode())

    return write


class SimulatedEndpoint:
    """A context manager that runs the endpoint in a thread of this process. Each object can be used once.

    Args:
        behaviour: the initial behaviour.
        port: 0 picks a free port.
        access_log: file that receives every record as a line of JSON, in addition to ``requests``.

    Attributes:
        base_url: up to and including ``/v1``.
        requests: the records of finished requests, in the order in which they finished.
    """

    def __init__(
        self,
        behaviour: Behaviour | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        access_log: Path | None = None,
    ) -> None:
        self.base_url = ""
        self.requests: list[AccessRecord] = []
        self._service = Service(behaviour or Behaviour(), self._record)
        self._address = (host, port)
        self._access_log = access_log
        self._files = ExitStack()
        self._log: Callable[[AccessRecord], None] | None = None
        self._ready = Event()
        self._failure: Exception | None = None
        self._thread = Thread(target=self._run, name="simulated-endpoint", daemon=True)

    @property
    def behaviour(self) -> Behaviour:
        """The current behaviour; an assignment takes effect with the next request."""
        return self._service.behaviour

    @behaviour.setter
    def behaviour(self, behaviour: Behaviour) -> None:
        self._service.set(behaviour)

    def __enter__(self) -> SimulatedEndpoint:
        if self._access_log is not None:
            self._log = json_lines_log(self._access_log, self._files)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            self._files.close()
            raise self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._files.close()

    def _record(self, record: AccessRecord) -> None:
        self.requests.append(record)
        if self._log is not None:
            self._log(record)

    def _run(self) -> None:
        try:
            run(self._serve())
        except Exception as failure:
            self._failure = failure
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        await serve(self._service, *self._address, announce=self._announce, stop=self._stop)

    def _announce(self, base_url: str) -> None:
        self.base_url = base_url
        self._ready.set()
