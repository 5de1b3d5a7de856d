"""``gpo view``."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from cluster.cli.options import folder_at
from cluster.cli.terminal import OK, say
from gpo.errors import ConfigError

_TOKEN_VARIABLE = "GPO_VIEW_TOKEN"  # noqa: S105  # a name, not a token


def view(
    folder: Annotated[
        str, typer.Argument(metavar="DIR", help="Folder that contains runs, or a URL such as s3://BUCKET/PATH.")
    ] = "runs",
    host: Annotated[
        str, typer.Option(help=f"Address to listen on; beyond loopback, {_TOKEN_VARIABLE} must be set.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8500,
) -> int:
    """Show the runs, comparisons and sweeps in DIR as web pages: a list, each as it is now, and runs side by side.

    Example: **gpo view runs**

    Ctrl-C ends it. Nothing is changed. If the variable **GPO_VIEW_TOKEN** is set, every request needs it as password.
    """
    import uvicorn

    from cluster.reporting.view import view_app
    from cluster.results.listed_runs import listed_runs
    from gpo.sockets import bound_socket
    from serve.http_limits import is_loopback

    token = os.environ.get(_TOKEN_VARIABLE) or None
    if not is_loopback(host) and token is None:
        raise ConfigError("--host", f"others can reach {host!r}, but no token is set", f"export {_TOKEN_VARIABLE}=…")
    parent = folder_at("DIR", folder)
    num_runs = len(listed_runs(parent))
    with bound_socket(host, port) as listening:
        shown = f"[{host}]" if ":" in host else host
        say(f"{num_runs} runs in {parent.path('')}: http://{shown}:{listening.getsockname()[1]} (Ctrl-C ends it)")
        server = uvicorn.Server(
            uvicorn.Config(view_app(parent, token), log_level="error", lifespan="off", timeout_graceful_shutdown=1)
        )
        try:
            server.run(sockets=[listening])
        except KeyboardInterrupt:
            return OK
    return OK
