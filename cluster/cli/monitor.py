"""``gpo monitor``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.terminal import OK, say


def monitor(
    run_dir: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN_DIR]", help="Watch this run only.  [default: all runs on this machine]", show_default=False
        ),
    ] = None,
    port: Annotated[int, typer.Option(help="Loopback port of Prometheus.", min=1, max=65535)] = 9090,
) -> int:
    """Watch local runs with a separate Prometheus, until Ctrl-C.

    Example: **gpo monitor**, and in another terminal **gpo run configs/quickstart.yaml --set metrics.port=0**

    Finds every run on this machine that was started with **--set metrics.port=0** (or another port), now or later, and
    keeps its data for the next time. Needs the program **prometheus**, e.g. from Debian's package of that name.
    Dashboards for Grafana are in **k8s/monitoring/dashboards/**.
    """
    from cluster.monitoring.monitor import DASHBOARDS, monitored_run, prometheus

    run = monitored_run(run_dir) if run_dir is not None else None
    with prometheus(run, port) as server:
        say(f"Prometheus is at {server.url} and watches {run or 'all runs on this machine that have a metrics.port'}.")
        say(f"In Grafana, add a data source of type Prometheus with this address, and import {DASHBOARDS}/*.json.")
        say("Start runs with --set metrics.port=0. Ctrl-C ends this.")
        server.wait()
    return OK
