"""The web pages of ``gpo view``: a list of runs, comparisons and sweeps, each as it is now, and runs side by side.

They change nothing. All pages are made here, without files of other hosts. Their content security policy allows their
own script alone. A page asks this server now and then for what is new.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Callable
from html import escape
from pathlib import PurePosixPath
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from actors.folder import Folder
from actors.search import SearchKey
from cluster.reporting.comparison import ComparedRun, compared_tasks, different_options
from cluster.reporting.rendering import Live, rendered
from cluster.reporting.viewed_run import ViewedRun
from cluster.reporting.viewed_sweep import PLOTS_POLICY, viewed_sweep
from cluster.results.listed_runs import listed_comparisons, listed_runs, listed_sweeps
from gpo.errors import GPOError
from serve.http_limits import is_loopback

_EVERY_S = 5.0
_MOST_COMPARED = 6
_PLAIN_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'"
_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"cache-control": b"no-store",
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"SAMEORIGIN",
}


def view_app(parent: Folder, token: str | None) -> Starlette:
    """The pages over the runs in a folder.

    Args:
        token: password of every request, with any user name; ``None`` needs none, and answers only requests whose Host
            header names this machine.
    """
    pages = _Pages(parent)

    def page(make: Callable[[Request], tuple[str, str | None]]) -> Callable[[Request], Any]:
        async def reply(request: Request) -> Response:
            version, content = await run_in_threadpool(make, request)
            return Response(status_code=304) if content is None else HTMLResponse(content, headers={"etag": version})

        return reply

    def data(make: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def reply(request: Request) -> Response:
            return await run_in_threadpool(lambda: JSONResponse(make(request)))

        return reply

    async def curves(request: Request) -> Response:
        return Response(await run_in_threadpool(pages.curves, request), media_type="image/svg+xml")

    async def plots(request: Request) -> Response:
        content = await run_in_threadpool(pages.plots, request)
        return HTMLResponse(content, headers={"content-security-policy": PLOTS_POLICY})

    async def explain(_: Request, error: Exception) -> Response:
        return HTMLResponse(f"<p>{escape(str(error))}</p>", 500, headers={"content-security-policy": _PLAIN_POLICY})

    return Starlette(
        routes=[
            Route("/", page(pages.overview)),
            Route("/compare", page(pages.comparison)),
            # Each has a prefix of its own, since a run in a comparison may have any name: "data", for example.
            Route("/run/{name:path}", page(pages.run)),
            Route("/answers/{name:path}", data(pages.answers)),
            Route("/curves/{task}/{name:path}", curves),
            Route("/data/{name:path}", data(pages.data)),
            Route("/sweep/{name}", page(pages.sweep)),
            Route("/sweep/{name}/plots", plots),
        ],
        middleware=[Middleware(_Guard, token=token)],
        exception_handlers={GPOError: explain},
    )


class _Pages:
    """Makes each page: its version, and its content unless the request names that version. Threads may share it."""

    def __init__(self, parent: Folder) -> None:
        self._parent = parent
        self._runs: dict[str, ViewedRun] = {}

    def overview(self, request: Request) -> tuple[str, str | None]:
        where = PurePosixPath(self._parent.url).name or self._parent.url
        parent = self._parent
        known = {
            "runs": listed_runs(parent),
            "comparisons": listed_comparisons(parent),
            "sweeps": listed_sweeps(parent),
        }
        return _page(request, "runs.html.j2", {**known, "where": where, "most": _MOST_COMPARED}, repr(known))

    def run(self, request: Request) -> tuple[str, str | None]:
        return self._run(request.path_params["name"]).page(request.headers.get("if-none-match", ""))

    def answers(self, request: Request) -> Any:
        asked = request.query_params
        try:
            key = SearchKey(asked["task"], int(asked["seed"]))
        except (KeyError, ValueError):
            raise HTTPException(400, "name a task and a seed") from None
        found = self._run(request.path_params["name"]).answers(key, asked.get("prompt", ""))
        if found is None:
            raise HTTPException(404, "the run has no such search")
        return found

    def data(self, request: Request) -> Any:
        return self._run(request.path_params["name"]).data()

    def curves(self, request: Request) -> str:
        svg = self._run(request.path_params["name"]).curves(request.path_params["task"])
        if svg is None:
            raise HTTPException(404, "the run has no such curves")
        return svg

    def comparison(self, request: Request) -> tuple[str, str | None]:
        names = list(dict.fromkeys(request.query_params.getlist("run")))
        if not 2 <= len(names) <= _MOST_COMPARED:
            raise HTTPException(400, f"choose 2 to {_MOST_COMPARED} runs")
        viewed = [self._run(name) for name in names]
        version = repr([one.version() for one in viewed])
        runs = [ComparedRun(one.name, one.folder, one.read()) for one in viewed]
        records = [run.stored.record for run in runs]
        known = {"runs": runs, "records": records, "tasks": lambda: compared_tasks(runs)}
        return _page(request, "compare.html.j2", {**known, "options": different_options(runs)}, version)

    def sweep(self, request: Request) -> tuple[str, str | None]:
        folder = self._sweep(request)
        sweep = viewed_sweep(folder, folder.names())
        known = {"sweep": sweep, "name": request.path_params["name"]}
        return _page(request, "viewed_sweep.html.j2", known, repr(sweep))

    def plots(self, request: Request) -> bytes:
        content = self._sweep(request).read("report.html")
        if content is None:
            raise HTTPException(404, "the sweep has no report yet")
        return content

    def _run(self, name: str) -> ViewedRun:
        # Only names from the lists: that is also what keeps requests inside the folder.
        if "/" in name:
            known = {f"{one.name}/{run.name}" for one in listed_comparisons(self._parent) for run in one.methods}
        else:
            known = {run.name for run in listed_runs(self._parent)}
        if name not in known:
            raise HTTPException(404, "there is no such run")
        return self._runs.setdefault(name, ViewedRun(self._parent / name, name))

    def _sweep(self, request: Request) -> Folder:
        name = str(request.path_params["name"])
        if name not in {sweep.name for sweep in listed_sweeps(self._parent)}:
            raise HTTPException(404, "there is no such sweep")
        return self._parent / name


def _page(request: Request, template: str, known: dict[str, Any], content: str) -> tuple[str, str | None]:
    version = hashlib.blake2b(content.encode(errors="replace"), digest_size=8).hexdigest()
    if request.headers.get("if-none-match") == version:
        return version, None
    return version, rendered(template, ("page.js", "lists.js"), Live(version, _EVERY_S), **known)


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
                message = {**message, "headers": [*message["headers"], *_HEADERS.items()]}
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
