"""The web page of ``gpo view``: a list of runs, and the report of each, as it is now. It changes nothing.

All pages are made here, without files of other hosts. A page of a run is its report, whose content security policy
allows its own script alone.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from base64 import b64decode
from binascii import Error as NotBase64
from html import escape
from importlib.resources import files
from pathlib import PurePosixPath

import jinja2
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from actors.folder import Folder
from cluster.display.progress import percent
from cluster.reporting.examples import page_answers
from cluster.reporting.page import report
from cluster.results.listed_runs import listed_runs
from cluster.results.status import SILENT_AFTER_S
from cluster.results.stored_run import RunReader
from gpo.errors import GPOError
from serve.http_limits import is_loopback

_REFRESH_S = 5
_RUN_REFRESH_S = 20
"""Longer, since a page that renews itself forgets what was searched in it."""
_PAGES = jinja2.Environment(
    loader=jinja2.PackageLoader("cluster.reporting", "templates"), autoescape=True, undefined=jinja2.StrictUndefined
)
_STYLE = (files("cluster.reporting") / "templates" / "report.css").read_text(encoding="utf-8")
_LIST_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
_ENDED = ("completed", "interrupted", "budget_exhausted", "failed")


def view_app(parent: Folder, token: str | None) -> Starlette:
    """The pages over the runs in a folder.

    Args:
        token: password of every request, with any user name; ``None`` needs none, and answers only requests whose Host
            header names this machine.
    """
    readers: dict[str, RunReader] = {}

    def list_page() -> str:
        where = PurePosixPath(parent.url).name or parent.url
        page = _PAGES.get_template("runs.html.j2")
        return page.render(runs=listed_runs(parent), where=where, style=_STYLE, percent=percent, refresh_s=_REFRESH_S)

    def run_page(name: str) -> str:
        if name not in {run.name for run in listed_runs(parent)}:  # also what keeps requests inside the folder
            raise HTTPException(404, "there is no such run")
        reader = readers.setdefault(name, RunReader(parent / name))
        stored = reader.read()
        page = report(stored.record, stored.document(), page_answers(reader.folder, stored.record))
        if stored.record.status in _ENDED or time.time() - stored.changed_at > SILENT_AFTER_S:
            return page
        return page.replace("<title>", f'<meta http-equiv="refresh" content="{_RUN_REFRESH_S}">\n<title>', 1)

    async def show_list(_: Request) -> Response:
        return HTMLResponse(await run_in_threadpool(list_page), headers={"content-security-policy": _LIST_POLICY})

    async def show_run(request: Request) -> Response:
        return HTMLResponse(await run_in_threadpool(run_page, request.path_params["name"]))

    async def explain(_: Request, error: Exception) -> Response:
        return HTMLResponse(f"<p>{escape(str(error))}</p>", 500, headers={"content-security-policy": _LIST_POLICY})

    return Starlette(
        routes=[Route("/", show_list), Route("/run/{name}", show_run)],
        middleware=[Middleware(_Guard, token=token)],
        exception_handlers={GPOError: explain},
    )


class _Guard:
    """Refuses requests without the token, or for another host; adds headers that keep pages to themselves."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._known = hashlib.sha256(token.encode()).digest() if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *_HEADERS]}
            await send(message)

        request = Request(scope)
        refusal: Response | None = None
        if self._known is None and not is_loopback(request.url.hostname or ""):
            refusal = Response("without a token, the Host header must name this machine", 403)
        elif self._known is not None and not self._is_known(request.headers.get("authorization", "")):
            refusal = Response("a valid token is needed", 401, {"WWW-Authenticate": 'Basic realm="gpo view"'})
        await (refusal or self._app)(scope, receive, answer)

    def _is_known(self, authorization: str) -> bool:
        scheme, _, given = authorization.partition(" ")
        if scheme.lower() == "basic":
            try:
                given = b64decode(given).decode(errors="replace").partition(":")[2]
            except (NotBase64, ValueError):
                return False
        elif scheme.lower() != "bearer":
            return False
        # As digests, in constant time: the duration reveals neither a part of the token nor its length.
        return hmac.compare_digest(hashlib.sha256(given.encode()).digest(), self._known or b"")
