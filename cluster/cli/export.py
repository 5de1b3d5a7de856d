"""``gpo export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.options import RunDir, folder_at
from cluster.cli.terminal import OK, say


def export(
    run_dir: RunDir,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="text|json|openai|promptfoo|dspy|inspect",
            help="**text**: the prompt alone. **json**: with its scores. **openai**: the body of a request, with "
            "placeholders for the columns. **promptfoo**: a configuration with the test examples. **dspy**: the saved "
            "state of a predictor. **inspect**: a log of inspect_ai with the answers.",
        ),
    ] = "text",
    task: Annotated[
        str | None, typer.Option("--task", metavar="NAME", help="Task of the run.", show_default="the first")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="FILE",
            help="Write to a file; with the format inspect, also into a folder.",
            show_default="standard output",
        ),
    ] = None,
) -> int:
    """Write the best prompt of the run in RUN_DIR in a format that other programs read.

    Example: **gpo export runs/quickstart --format openai**
    """
    import json

    from cluster.evaluating.score import require_writable, write_output
    from cluster.reporting.export import exported
    from cluster.reporting.inspect_log import log_name

    into = output if form == "inspect" and output is not None and output.is_dir() else None
    if output is not None and into is None:
        require_writable(output)
    content = exported(folder_at("RUN_DIR", run_dir), form, task)
    if into is not None:
        output = into / log_name(json.loads(content))
    if output is None:
        typer.echo(content, nl=False)  # as it is: a prompt may contain tabs
    else:
        write_output(output, content.encode(errors="replace"))
        say(f"Written to {output}.")
    return OK
