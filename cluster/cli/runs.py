"""``gpo runs``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from cluster.cli.options import folder_at
from cluster.cli.terminal import OK, out, say, show


def runs(
    folder: Annotated[
        str, typer.Argument(metavar="DIR", help="Folder that contains runs, or a URL such as s3://BUCKET/PATH.")
    ] = "runs",
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each run.")] = False,
) -> int:
    """List the runs in DIR, the newest first: status, tasks, scores, calls and cost.

    Example: **gpo runs**
    """
    from cluster.results.listed_runs import listed_runs, runs_table

    parent = folder_at("DIR", folder)
    found = listed_runs(parent)
    if as_json:
        for run in found:
            show(json.dumps(run.document(), ensure_ascii=False))
    elif found:
        out.print(runs_table(found))
    else:
        say(f"There is no run in {parent.path('')}.")
    return OK
