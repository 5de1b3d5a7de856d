"""Makes the HTTP clients of this process name the example that they send a request for.

A framework knows nothing of examples, but its client runs in the task or thread of one. The header is added to requests
to the gateway alone. Threads that a program starts without their context name no example.

``httpx``, which most frameworks use, needs no connection to a gateway of the same process: the gateway answers in place
of the transport.
"""

from __future__ import annotations

import asyncio
import functools
import http.client
import os
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from multidict import CIMultiDict

from gpo.evaluation.program_calls import EXAMPLE_HEADER, current_example

if TYPE_CHECKING:
    from gpo.evaluation.gateway import Gateway


@cache
def name_examples(url: str, current: Callable[[], str] = current_example.get, gateway: Gateway | None = None) -> None:
    """Add the header to requests of the packages httpx, httpx2 and aiohttp, and of all that use ``http.client``.

    Args:
        url: of the gateway.
        current: the name of the example that is in work; empty if there is none.
        gateway: answers the requests of httpx and httpx2, if it runs in this process.
    """
    address = urlsplit(url)
    host, port = address.hostname, address.port
    pid = os.getpid()

    def in_this_process() -> Gateway | None:
        return gateway if os.getpid() == pid else None  # a forked child has no thread of the gateway

    def is_for_gateway(request: Any) -> bool:
        if request.url.port != port or request.url.host != host:
            return False
        if example := current():
            request.headers[EXAMPLE_HEADER] = example
        return True

    def httpx_async(module: Any, handle: Callable[..., Any]) -> Callable[..., Any]:
        async def handled(self: Any, request: Any) -> Any:
            if not is_for_gateway(request) or (local := in_this_process()) is None or not _in_asyncio():
                return await handle(self, request)
            reply = await local.reply(request.method, request.url.path, request.headers, request.aread)
            return reply.as_response_of(module)

        return handled

    def httpx_sync(module: Any, handle: Callable[..., Any]) -> Callable[..., Any]:
        def handled(self: Any, request: Any) -> Any:
            if not is_for_gateway(request) or (local := in_this_process()) is None:
                return handle(self, request)
            reply = local.reply_in_thread(request.method, request.url.path, request.headers, request.read())
            return reply.as_response_of(module)

        return handled

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
            _replace(module.AsyncHTTPTransport, "handle_async_request", functools.partial(httpx_async, module))
            _replace(module.HTTPTransport, "handle_request", functools.partial(httpx_sync, module))
    _replace(import_module("aiohttp").ClientSession, "_request", aiohttp_request)
    _replace(http.client.HTTPConnection, "endheaders", headers_end)  # also of requests, urllib3 and urllib


def _in_asyncio() -> bool:
    """Whether the calling coroutine runs in a loop of asyncio, rather than of another package, such as trio."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _replace(owner: Any, name: str, wrapped: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    original = getattr(owner, name)
    setattr(owner, name, functools.wraps(original)(wrapped(original)))
