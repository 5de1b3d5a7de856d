"""``gpo serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.options import Address, Config, Overrides
from cluster.cli.terminal import OK, check_endpoints, err


def serve(
    config_path: Config,
    overrides: Overrides = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond loopback, GPO_SERVE_TOKEN must be set.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8000,
    address: Address = None,
    runs_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the runs that are started over HTTP; those that have not ended continue.  [default: the "
            "folder that the option run.dir names]",
            show_default=False,
        ),
    ] = None,
    max_runs: Annotated[int, typer.Option(help="Runs that work at once; 0 starts no runs.", min=0)] = 8,
    allow_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder with files and Python modules that a run over HTTP may name. Whoever may start runs can read "
            "these files, and call every function there.  [default: none]",
            show_default=False,
        ),
    ] = None,
) -> int:
    """Serve the evaluator of CONFIG's tasks over HTTP, and start runs, until Ctrl-C.

    Example: **gpo serve configs/quickstart.yaml --port 8000**

    **POST /v1/evaluate** scores a prompt on a task and split, **POST /v1/runs** starts a run; **/docs** and
    **/openapi.json** describe the interface.
    If the variable **GPO_SERVE_TOKEN** is set, every request needs it as a bearer token. For a cluster that already
    runs, set it where the cluster is started.
    """
    from cluster.config import load_config
    from cluster.serving.folders import run_folders
    from cluster.session.models import build_tasks, is_judged
    from cluster.session.ray_environment import prepare_environment, resolve_address

    config = load_config(config_path, overrides or [])
    folders = run_folders(config, runs_dir, allow_dir, max_runs)
    ray_address = resolve_address(address)
    tasks = build_tasks(config)
    refused = check_endpoints(config, tasks=tasks, roles=("task", "judge") if is_judged(config) else ("task",))

    prepare_environment(ray_address)
    from cluster.serving.command import serve_evaluator

    serve_evaluator(config, tasks, host, port, ray_address, err, refused, folders)
    return OK
