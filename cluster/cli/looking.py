"""Commands that look at runs: ``report``, ``status`` and ``monitor``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.arguments import RunDir
from cluster.cli.exits import exit_with
from cluster.commands import looking as commands


def report(run_dir: RunDir) -> None:
    """Write **report.html** of the run in RUN_DIR anew: at any time, also while it works."""
    exit_with(commands.report, run_dir)


def status(
    run_dir: RunDir,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until the run ends.")] = False,
    every: Annotated[float, typer.Option(metavar="S", help="Seconds between looks with --watch.", min=0.1)] = 2.0,
) -> None:
    """Say how far the run in RUN_DIR is that was started elsewhere: state, steps, scores, spending, last change.

    Exit codes: 0 it is complete or at work, 1 it failed, was stopped or shows no sign of life, 2 there is no run.
    """
    exit_with(commands.status, run_dir, as_json, every if watch else None)


def monitor(
    run_dir: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN_DIR]", help="Watch this run only.  [default: all runs on this machine]", show_default=False
        ),
    ] = None,
    port: Annotated[int, typer.Option(help="Where Prometheus listens, on loopback.", min=1, max=65535)] = 9090,
) -> None:
    """Watch local runs with a Prometheus of their own, until Ctrl-C.

    It finds every run on this machine that was started with **--set metrics.port=0** (or another port), now or later,
    and keeps what it has seen for the next time. Needs the program **prometheus**, as Debian's package of that name has
    it. The dashboards for Grafana are in **k8s/monitoring/dashboards/**.
    """
    exit_with(commands.monitor, run_dir, port)
