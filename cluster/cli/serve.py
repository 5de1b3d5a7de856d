"""``gpo serve``."""

from __future__ import annotations

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
) -> int:
    """Serve the evaluator of CONFIG's tasks over HTTP, until Ctrl-C.

    Example: **gpo serve configs/quickstart.yaml --port 8000**

    **POST /v1/evaluate** scores a prompt on a task and split; **/docs** and **/openapi.json** describe the interface.
    If the variable **GPO_SERVE_TOKEN** is set, every request needs it as a bearer token. For a cluster that already
    runs, set it where the cluster is started.
    """
    from cluster.config import load_config
    from cluster.session.models import build_tasks
    from cluster.session.ray_environment import prepare_environment, resolve_address

    config = load_config(config_path, overrides or [])
    ray_address = resolve_address(address)
    tasks = build_tasks(config)
    is_judged = any(task.answer.kind == "judge" for task in config.tasks)
    refused = check_endpoints(config, tasks=tasks, roles=("task", "judge") if is_judged else ("task",))

    prepare_environment(ray_address)
    from cluster.serving.command import serve_evaluator

    serve_evaluator(config, tasks, host, port, ray_address, err, refused)
    return OK
