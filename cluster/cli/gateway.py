"""``gpo gateway``."""

from __future__ import annotations

from typing import Annotated

import typer

from cluster.cli.options import Config, Overrides
from cluster.cli.terminal import OK, err


def gateway(
    config_path: Config,
    overrides: Overrides = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond loopback, GPO_GATEWAY_TOKEN must be set.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8001,
) -> int:
    """Serve the models of CONFIG to OpenAI clients, until Ctrl-C.

    Example: **gpo gateway configs/quickstart.yaml --port 8001**

    Calls pass the configuration's cache, limits, budget and retries. The command prints the address and the key that
    clients need; the key is random unless the variable **GPO_GATEWAY_TOKEN** is set.
    """
    from cluster.config import load_config
    from cluster.serving.gateway import serve_models

    serve_models(load_config(config_path, overrides or []), host, port, err)
    return OK
