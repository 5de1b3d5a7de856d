"""``gpo submit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.arguments import Overrides
from cluster.cli.exits import exit_with
from cluster.commands import submitting as commands


def submit(
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG", help="YAML file below this folder.", show_default=False)
    ] = None,
    overrides: Overrides = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="URL",
            help="The cluster's dashboard.  [default: RAY_API_SERVER_ADDRESS, or else http://127.0.0.1:8265]",
            show_default=False,
        ),
    ] = None,
    sweep: Annotated[bool, typer.Option("--sweep", help="Run **gpo sweep** rather than **gpo run**.")] = False,
    run_id: Annotated[
        str | None,
        typer.Option(
            "--run-id",
            metavar="ID",
            help="Of the run. With that of an earlier run, this goes on with it.  [default: a new one]",
            show_default=False,
        ),
    ] = None,
    run_dir: Annotated[
        str | None,
        typer.Option(
            "--run-dir",
            metavar="DIR",
            help="Folder or fsspec URL for the results, which all nodes reach.  [default: ID below run.dir]",
            show_default=False,
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Show the job's output, and wait for its end.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the job's end, and exit as it did.")] = False,
    status: Annotated[
        str | None, typer.Option("--status", metavar="ID", help="Only say how this run does.", show_default=False)
    ] = None,
    stop: Annotated[
        str | None, typer.Option("--stop", metavar="ID", help="Only stop this run; it can go on.", show_default=False)
    ] = None,
    kubernetes: Annotated[
        bool, typer.Option("--kubernetes", help="Print a RayJob for KubeRay instead, with a cluster of its own.")
    ] = False,
    image: Annotated[
        str | None, typer.Option("--image", help="Of the RayJob's containers.", show_default=False)
    ] = None,
    namespace: Annotated[str, typer.Option("--namespace", help="Of the RayJob.")] = "gpo",
    apply: Annotated[bool, typer.Option("--apply", help="Hand both objects to **kubectl**.")] = False,
) -> None:
    """Run CONFIG as a job on a Ray cluster that runs elsewhere.

    Ships this folder, but for what **.gitignore** and **.rayignore** name, and never keys: each node of the cluster
    needs those that CONFIG names in its environment. A cluster that asks for a token is told **RAY_AUTH_TOKEN**.
    """
    from cluster.submitting.command import SubmitOptions

    asked = status or stop
    options = SubmitOptions(sweep, asked or run_id, run_dir, follow, wait, kubernetes or apply, apply, image, namespace)
    action = "status" if status else "stop" if stop else None
    exit_with(commands.submit, config, overrides or [], address, options, action)
