"""Answers scrapes over HTTP, in threads beside whatever else its process does."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable, Iterator
from socketserver import ThreadingMixIn
from threading import Lock, Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from actors.metrics.elsewhere import SilentNodeError

log = logging.getLogger(__name__)

_SILENCE_S = 10.0


class ScrapeServer:
    """The server.

    Args:
        port: 0 takes a free one.

    Attributes:
        port: at which it listens.
        begun: the number of scrapes so far.
        answered: the number of the last one whose answer is out.

    Raises:
        OSError: the address cannot be listened at.
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        self._app: Any = make_wsgi_app(registry)
        self._lock = Lock()
        self.begun = self.answered = 0
        kind = _Server6 if ":" in host else _Server
        self._server = make_server(host, port, self._answer, server_class=kind, handler_class=_Handler)
        self.port = int(self._server.server_port)
        self._thread = Thread(target=self._server.serve_forever, name="scrapes", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, environ: Any, start_response: Any) -> Iterator[bytes]:
        with self._lock:
            self.begun += 1
            number = self.begun
        try:
            answer: Iterable[bytes] = self._app(environ, start_response)
        except Exception as error:  # a scrape is no reason for a traceback where people look
            if not isinstance(error, SilentNodeError):
                log.warning("a scrape failed: %s: %s", type(error).__name__, str(error).partition("\n")[0])
            start_response("503 Service Unavailable", [("Content-Type", "text/plain")])
            yield str(error).encode() if isinstance(error, SilentNodeError) else b"the counts cannot be read now"
            return
        # Counted once the answer is out: who waits for a scrape may end us then.
        yield from answer
        with self._lock:
            self.answered = max(self.answered, number)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Whoever connects and goes, or says nothing, is no news; the base class prints a traceback.
        log.debug("a connection to the exporter broke", exc_info=True)


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = _SILENCE_S  # a connection that says nothing holds a thread

    def log_message(self, *_: object) -> None: ...
