"""``python -m cluster.monitoring.relay``: answers scrapes on the head of a cluster that stays, also between runs.

The exporter of runs listens only while a run works, so its port alone would be a target that is down most of the time.
This process passes scrapes on to the exporter, and answers with an empty page while there is none.
"""

from __future__ import annotations

import signal
import sys
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

PORT, EXPORTER_PORT = 9465, 9464
_TIMEOUT_S = 9.0
"""Prometheus waits ten seconds."""
_NO_RUN = b"# no run is working\n"
_TEXT = "text/plain; version=0.0.4; charset=utf-8"


def relay(port: int, exporter_port: int, host: str = "0.0.0.0") -> ThreadingHTTPServer:  # noqa: S104  # of a pod, behind a NetworkPolicy
    """A server that passes scrapes on to an exporter on this machine; not started yet.

    It answers 200 without metrics if nothing listens there, and 502 if the exporter fails.

    Args:
        port: to listen on; 0 takes a free one.
    """
    return ThreadingHTTPServer(
        (host, port), type("Handler", (_Handler,), {"url": f"http://127.0.0.1:{exporter_port}/metrics"})
    )


def main() -> None:
    """Serve until SIGTERM."""
    # The first process of a container ignores signals that it does not handle.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with relay(PORT, EXPORTER_PORT) as server:
        server.serve_forever()


class _Handler(BaseHTTPRequestHandler):
    url = ""

    def do_GET(self) -> None:  # the name that the standard library calls
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404)
            return
        # The exporter chooses its format by this header.
        request = Request(self.url, headers={"Accept": self.headers.get("Accept", "*/*")})  # noqa: S310  # a constant
        try:
            with urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
                kind, page = answer.headers.get("Content-Type", _TEXT), answer.read()
        except HTTPError:
            self.send_error(502)
            return
        except URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError):
                self.send_error(502)
                return
            kind, page = _TEXT, _NO_RUN
        except (OSError, HTTPException):
            self.send_error(502)
            return
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  # the library's own name
        """Say nothing: there is a scrape every few seconds."""


if __name__ == "__main__":
    main()
