"""Makes the HTTP clients of this process name the example that they send a request for.

A framework knows nothing of examples, but its client runs in the task or thread of one. The header is added to requests
to the gateway alone. Threads that a program starts without their context name no example.
"""

from __future__ import annotations

import functools
import http.client
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from multidict import CIMultiDict

from gpo.evaluation.program_calls import EXAMPLE_HEADER, current_example


@cache
def name_examples(url: str, current: Callable[[], str] = current_example.get) -> None:
    """Add the header to requests of the packages httpx, httpx2 and aiohttp, and of all that use ``http.client``.

    Args:
        url: of the gateway.
        current: the name of the example that is in work; empty if there is none.
    """
    address = urlsplit(url)
    host, port = address.hostname, address.port

    def httpx_send(send: Callable[..., Any]) -> Callable[..., Any]:
        def sent(self: Any, request: Any, **options: Any) -> Any:
            if (example := current()) and request.url.port == port and request.url.host == host:
                request.headers[EXAMPLE_HEADER] = example
            return send(self, request, **options)

        return sent

    def aiohttp_request(request: Callable[..., Any]) -> Callable[..., Any]:
        def requested(self: Any, method: str, where: Any, **options: Any) -> Any:
            if example := current():
                target = self._build_url(where)
                if target.port == port and target.host == host:
                    options["headers"] = CIMultiDict(options.get("headers") or (), **{EXAMPLE_HEADER: example})
            return request(self, method, where, **options)

        return requested

    def headers_end(end: Callable[..., Any]) -> Callable[..., Any]:
        def ended(self: Any, *arguments: Any, **options: Any) -> Any:
            if (example := current()) and self.port == port and self.host == host:
                self.putheader(EXAMPLE_HEADER, example)
            return end(self, *arguments, **options)

        return ended

    for package in ("httpx", "httpx2"):
        if find_spec(package) is not None:
            module = import_module(package)
            _replace(module.Client, "send", httpx_send)
            _replace(module.AsyncClient, "send", httpx_send)
    _replace(import_module("aiohttp").ClientSession, "_request", aiohttp_request)
    _replace(http.client.HTTPConnection, "endheaders", headers_end)  # also of requests, urllib3 and urllib


def _replace(owner: Any, name: str, wrapped: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    original = getattr(owner, name)
    setattr(owner, name, functools.wraps(original)(wrapped(original)))
