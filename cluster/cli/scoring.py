"""Commands around one search or none: ``plan``, ``evaluate``, ``score`` and ``serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.arguments import Address, Config, Overrides
from cluster.cli.exits import exit_with
from cluster.commands import scoring as commands


def plan(
    config: Config,
    overrides: Overrides = None,
    output: Annotated[
        Path | None, typer.Option(help="Write the plan to this JSON file, too.", show_default=False)
    ] = None,
) -> None:
    """Say what **gpo run** CONFIG, or **gpo sweep** CONFIG, may take: calls, tokens and dollars of each task and model.

    Loads and checks the configuration and the data; calls no model and starts nothing. Prices come from **price** in
    the sections of **models**.
    """
    exit_with(commands.plan, config, overrides or [], output)


def evaluate(
    config: Config,
    overrides: Overrides = None,
    task: Annotated[
        str | None, typer.Option(help="Task of the configuration.  [default: the first]", show_default=False)
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(help="The prompt to score.  [default: the task's initial prompt]", show_default=False),
    ] = None,
    split: Annotated[str, typer.Option(help="**train**, **val** or **test**.")] = "val",
    output: Annotated[
        Path | None,
        typer.Option(help="Write the score, with each example's, to this JSON file.", show_default=False),
    ] = None,
) -> None:
    """Score one prompt on one task and split, in this process: no Ray, no search."""
    exit_with(commands.evaluate, config, overrides or [], task, prompt, split, output)


def score(
    answers: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="JSON Lines with the fields **dataset**, **task**, **target** and **answer**; others are kept.",
            show_default=False,
        ),
    ],
    parser: Annotated[
        str,
        typer.Option(help="Who reads the answers: **default**, or **paper** for the rules of the published figures."),
    ] = "default",
    output: Annotated[
        Path | None,
        typer.Option(help="Write the scored lines to this file.  [default: standard output]", show_default=False),
    ] = None,
) -> None:
    """Score the recorded answers in FILE: each line again, in order, with its **score** in [0, 1].

    A summary per dataset goes to standard error; where lines hold a **reference_score**, it says how often the two
    agree (texts: to 0.02).
    """
    exit_with(commands.score, answers, parser, output)


def serve(
    config: Config,
    overrides: Overrides = None,
    host: Annotated[
        str, typer.Option(help="Where to listen; beyond loopback, GPO_SERVE_TOKEN must be set.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8000,
    address: Address = None,
) -> None:
    """Serve the evaluator of CONFIG's tasks over HTTP, until Ctrl-C.

    **POST /v1/evaluate** scores a prompt on a task and split; **/docs** and **/openapi.json** describe it. Where the
    variable **GPO_SERVE_TOKEN** is set, every request needs it as a bearer token; on a cluster that runs already, it
    must be set where the cluster was started.
    """
    exit_with(commands.serve, config, overrides or [], host, port, address)
