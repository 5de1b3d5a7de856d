"""Arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[
    Path,
    typer.Argument(
        metavar="CONFIG", help="YAML file; see configs/README.md for what can be in it.", show_default=False
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="A.B=C",
        help="Put a value over the file's, e.g. **--set optimizer.steps=3** or **--set tasks.0.prompt='Think.'**; "
        "can be repeated.",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="local|auto|HOST:PORT",
        help="The Ray cluster: **local** starts one on this machine for this command, **auto** finds the one that "
        "runs here.  [default: RAY_ADDRESS, or else local]",
        show_default=False,
    ),
]

ResultsDir = Annotated[
    str | None,
    typer.Option(
        "--run-dir",
        metavar="DIR",
        help="Folder or fsspec URL for the results.  [default: a new folder below run.dir]",
        show_default=False,
    ),
]
RunDir = Annotated[str, typer.Argument(metavar="RUN_DIR", help="Folder or fsspec URL of a run.", show_default=False)]
