"""``gpo status``."""

from __future__ import annotations

from typing import Annotated

import typer

from cluster.cli.options import RunDir, folder_at
from cluster.cli.terminal import FAILED, OK, out


def status(
    run_dir: RunDir,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Repeat until the run ends.")] = False,
    every: Annotated[float, typer.Option(metavar="S", help="Seconds between two looks with --watch.", min=0.1)] = 2.0,
) -> int:
    """Show the progress of the run in RUN_DIR: state, steps, scores, spending and last change.

    Example: **gpo status runs/quickstart --watch**

    Works for runs that another process or machine has started. Exit codes: 0 the run is complete or working, 1 it
    failed, was stopped or shows no sign of life, 2 there is no run.
    """
    from cluster.results.status import follow_status, print_status
    from cluster.results.stored_run import RunReader

    reader = RunReader(folder_at("RUN_DIR", run_dir))
    seen = follow_status(reader, out, as_json, every) if watch else print_status(reader, out, as_json)
    return OK if seen.is_well else FAILED
