"""The commands of ``gpo``: one file each, with its options and what it does.

Heavy imports wait inside the functions, so that ``gpo --help`` answers at once and Ray is imported only after its
environment variables are set.
"""

from __future__ import annotations

from typing import Annotated

import typer

from cluster.cli.compare import compare
from cluster.cli.diff import diff
from cluster.cli.evaluate import evaluate
from cluster.cli.export import export
from cluster.cli.gateway import gateway
from cluster.cli.init import init
from cluster.cli.monitor import monitor
from cluster.cli.plan import plan
from cluster.cli.report import report
from cluster.cli.run import run
from cluster.cli.runs import runs
from cluster.cli.score import score
from cluster.cli.serve import serve
from cluster.cli.show import show
from cluster.cli.status import status
from cluster.cli.stop import stop
from cluster.cli.submit import submit
from cluster.cli.sweep import sweep
from cluster.cli.terminal import OK, choose_logs, exiting
from cluster.cli.view import view
from cluster.display.logs import Format, Level, Logs, Target

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""Optimize prompts with GPO (arXiv:2402.17564), in parallel, on a laptop or a Ray cluster.

    Start with **gpo run configs/quickstart.yaml**: it needs no API key and no network.
    Every command explains itself with **--help**.

    Exit codes: 0 success, 2 a mistake in the configuration or the command line, 130 Ctrl-C before the work has begun,
    1 any other failure.""",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"gpo {version('distributed-gpo')}")
        raise typer.Exit(OK)


@app.callback()
def options(
    _show_version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
    log_format: Annotated[Format, typer.Option(help="Format of log lines.", envvar="GPO_LOG_FORMAT")] = Format.TEXT,
    log_level: Annotated[
        Level, typer.Option(help="Least severe level that is logged.", envvar="GPO_LOG_LEVEL")
    ] = Level.WARNING,
    log_to: Annotated[
        Target,
        typer.Option(
            help="Where log lines go: **stderr**, or **folder** for one file per process in **logs/** of the run "
            "folder. With **json** on **stderr**, nothing else is printed there.",
            envvar="GPO_LOG_TO",
        ),
    ] = Target.STDERR,
) -> None:
    """Apply the options that every command shares; the help text is the application's."""
    choose_logs(Logs(log_format, log_level, log_to))


# In the order in which `--help` lists them.
_COMMANDS = (
    *(init, run, compare, sweep, submit, stop, runs, view, status, show, diff, report, export),
    *(plan, evaluate, score, serve, gateway, monitor),
)
for _command in _COMMANDS:
    app.command()(exiting(_command))
