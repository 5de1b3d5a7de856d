"""``gpo init``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.terminal import OK, err, say, show


def init(
    data: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="Examples: a table (**.csv**, **.tsv**), JSON Lines (**.jsonl**), or the name of a Hugging Face data "
            "set, **owner/name**.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            help="Configuration to write.  [default: the name of FILE with .yaml, in the working directory]",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the configuration if it exists.")] = False,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="COLUMN",
            help="Column with the input; several make a template. Can be repeated.  [default: found out]",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column with the right answer.  [default: found out]", show_default=False),
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="Configuration of the Hugging Face data set.", show_default=False)
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Model for both roles.  [default: gpt-4o-mini and gpt-4o]", show_default=False),
    ] = None,
    embedded: Annotated[
        bool,
        typer.Option("--embedded", help="Use the small model that is installed with the program: no key, no cost."),
    ] = False,
) -> int:
    """Propose a configuration for a file of examples: columns, kind of answer, splits and a first prompt.

    Example: **gpo init configs/quickstart/messages.csv --embedded**

    Reads all rows, and calls no model. The configuration works as it is; comments with **CHECK:** mark what is
    doubtful.
    """
    from cluster.proposing.configuration import configuration, found_lines, next_commands, require_free, written
    from cluster.proposing.proposal import proposed
    from cluster.proposing.rows import read_data
    from gpo.errors import ConfigError

    if model is not None and embedded:
        raise ConfigError("--model", "is set together with --embedded", "keep one of the two")
    if model is not None and not model.strip():
        raise ConfigError("--model", "is empty", "name a model, or leave the option out")
    if output is not None:
        require_free(output, may_replace=force)
    wanted = [*(inputs or []), *([target] if target is not None else [])]
    with err.status("Reading the rows …"):
        read = read_data(data, config, frozenset(wanted))
        output = output or Path(f"{read.name}.yaml")
        require_free(output, may_replace=force)
        proposal = proposed(read, inputs or [], target, is_embedded=embedded)
    task = written(configuration(proposal, output, model=model, is_embedded=embedded), output, may_replace=force)
    for line in found_lines(proposal, task):
        show(line)
    plan, run = next_commands(output)
    say(f"Wrote {output}. Read and correct it, then enter:")
    if not embedded:
        say("  export OPENAI_API_KEY=...   # for an endpoint other than OpenAI's own, also OPENAI_BASE_URL")
    say(f"  {plan}")
    say(f"  {run}")
    return OK
