"""An HTTP server that answers scrapes in threads."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable, Iterator
from io import StringIO
from socketserver import TCPServer, ThreadingMixIn
from threading import BoundedSemaphore, Lock, Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from gpo.text import first_line

log = logging.getLogger(__name__)

_SILENCE_S = 10.0
"""Seconds without traffic after which a connection is closed."""
_CONNECTIONS = 32
"""Connections at once, each with a thread; further connections are closed."""


class ScrapeServer:
    """The server.

    Args:
        port: 0 takes a free one.

    Attributes:
        port: the port that it listens at.
        begun: the number of scrapes so far.
        answered: the number of the last scrape whose answer was sent.

    Raises:
        OSError: the address cannot be listened at.
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        self._app: Any = make_wsgi_app(registry)
        self._lock = Lock()
        self.begun = self.answered = 0
        kind = _Server6 if _is_ipv6(host, port) else _Server
        self._server = make_server(host, port, self._answer, server_class=kind, handler_class=_Handler)
        self.port = int(self._server.server_port)
        self._thread = Thread(target=self._server.serve_forever, name="scrapes", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, environ: Any, start_response: Any) -> Iterator[bytes]:
        # Other clients may ask for other paths; they must not end the wait of a run for its last scrape.
        is_scrape = environ["REQUEST_METHOD"] == "GET" and environ["PATH_INFO"] == "/metrics"
        with self._lock:
            self.begun += is_scrape
            number = self.begun
        try:
            answer: Iterable[bytes] = self._app(environ, start_response)
        except Exception as error:  # no traceback in the output of the run
            log.warning("a scrape failed: %s: %s", type(error).__name__, first_line(error))
            start_response("503 Service Unavailable", [("Content-Type", "text/plain")])
            yield b"the counts cannot be read now"
            return
        # Counted once the answer is sent: a driver that waits for the scrape may then end this process.
        yield from answer
        with self._lock:
            self.answered = max(self.answered, number if is_scrape else 0)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = _CONNECTIONS

    def __init__(self, *arguments: Any) -> None:
        self._free = BoundedSemaphore(_CONNECTIONS)
        super().__init__(*arguments)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer looks up the name of this machine, which can take seconds
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Clients that disconnect or send nothing are normal; the base class prints a traceback.
        log.debug("a connection to the exporter broke", exc_info=True)


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = _SILENCE_S

    def get_stderr(self) -> Any:
        return StringIO()  # swallows the traceback when the client does not read the answer

    def log_message(self, *_: object) -> None: ...


def _is_ipv6(host: str, port: int) -> bool:
    """Whether the host has only IPv6 addresses; clients expect ``localhost`` at 127.0.0.1."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return socket.AF_INET not in {family for family, *_ in found}
