"""What commands print, how their errors look, and their exit codes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec

import typer

from cluster.display import logs
from cluster.display.console import LineConsole
from gpo.errors import ConfigError, GPOError

if TYPE_CHECKING:
    from cluster.config import RunConfig
    from cluster.session.models import RefusedParameters, Role
    from gpo.data.task import Task

log = logging.getLogger(__name__)

OK, FAILED, BAD_CONFIG, INTERRUPTED = 0, 1, 2, 130

out, err = LineConsole(), LineConsole(stderr=True)

_P = ParamSpec("_P")


def show(text: str) -> None:
    """Print a line of the command's result, for people and scripts."""
    out.print(text.expandtabs() if "\t" in text else text, highlight=False, markup=False, soft_wrap=True, emoji=False)


def say(text: str, style: str | None = None) -> None:
    """Print a message for the user; it goes to standard error, or to the log where that holds JSON lines only."""
    if logs.chosen().owns_stderr:
        log.log(logging.ERROR if style == "red" else logging.INFO, "%s", text)
        return
    err.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def choose_logs(chosen: logs.Logs) -> None:
    """Configure logging; where standard error holds JSON lines, nothing else is printed there."""
    logs.choose(chosen)
    err.quiet = chosen.owns_stderr


def exiting(command: Callable[_P, int]) -> Callable[_P, None]:
    """Wrap a command: its result becomes the exit code, and an error becomes one clear line and an exit code."""

    @wraps(command)
    def run(*arguments: _P.args, **options: _P.kwargs) -> None:
        from cluster.session.interrupts import stoppable

        try:
            with stoppable():
                code = command(*arguments, **options)
        except GPOError as error:
            say(f"gpo: error: {error}", style="red")
            code = BAD_CONFIG if isinstance(error, ConfigError) else FAILED
        except KeyboardInterrupt:
            say("Interrupted.")
            code = INTERRUPTED
        raise typer.Exit(code)

    return run


def check_endpoints(
    *configs: RunConfig, tasks: Sequence[Task], roles: Sequence[Role] | None = None
) -> RefusedParameters:
    """Call every model once, before anything starts or costs more; print what may go wrong later.

    Returns:
        Parameters that the endpoints refuse.

    Raises:
        ConfigError: a model cannot be used.
    """
    import asyncio

    from cluster.session.preflight import check_models

    refused: RefusedParameters = {}
    with err.status("Checking the models …"):
        for config in configs:
            found = asyncio.run(check_models(config, tasks, roles, say=say))
            refused = {**refused, **found.refused}
            for warning in found.warnings:
                say(f"Warning: {warning}.", style="yellow")
    return refused
