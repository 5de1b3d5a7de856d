"""The ``gpo`` command.

What a user types, and what ``--help`` says; ``cluster.commands`` does it.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from cluster.cli.looking import monitor, report, status
from cluster.cli.scoring import evaluate, plan, score, serve
from cluster.cli.searching import compare, run, sweep
from cluster.cli.submitting import submit
from cluster.commands.exit_codes import OK
from cluster.commands.terminal import choose_logs
from cluster.display.logs import Format, Level, Logs, Target

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""Optimize prompts by GPO (arXiv:2402.17564), in parallel, on a laptop or a Ray cluster.

    Begin with **gpo run configs/quickstart.yaml**: it needs no key and no network.
    Every command says more with **--help**.

    Exit codes: 0 success, 2 a mistake in the configuration or the command line, 1 anything else.""",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gpo {version('distributed-gpo')}")
        raise typer.Exit(OK)


@app.callback()
def options(
    _show_version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
    log_format: Annotated[
        Format, typer.Option(help="What log lines look like.", envvar="GPO_LOG_FORMAT")
    ] = Format.TEXT,
    log_level: Annotated[
        Level, typer.Option(help="From which severity on something is logged.", envvar="GPO_LOG_LEVEL")
    ] = Level.WARNING,
    log_to: Annotated[
        Target,
        typer.Option(
            help="Where log lines go: **stderr**, or **folder** for a file of each process in **logs/** of the run's "
            "folder. With **json** on **stderr**, nothing else is printed there.",
            envvar="GPO_LOG_TO",
        ),
    ] = Target.STDERR,
) -> None:
    """Take the options of the command itself; the help text stands with the application."""
    choose_logs(Logs(log_format, log_level, log_to))


# In the order in which `--help` lists them.
for _command in (run, compare, sweep, submit, report, status, plan, evaluate, score, serve, monitor):
    app.command()(_command)


def main() -> None:
    """Entry point of the console script."""
    app()
