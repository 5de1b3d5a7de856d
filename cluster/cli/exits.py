"""How a command ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from cluster.commands.exit_codes import BAD_CONFIG, FAILED
from cluster.commands.terminal import say
from cluster.session.interrupts import stoppable
from gpo.errors import ConfigError, GPOError


def exit_with(command: Callable[..., int], *arguments: Any) -> None:
    """Run the command; its errors become one clear line and an exit code.

    Raises:
        typer.Exit: always, with the code.
    """
    try:
        with stoppable():
            code = command(*arguments)
    except GPOError as error:
        say(f"gpo: error: {error}", style="red")
        code = BAD_CONFIG if isinstance(error, ConfigError) else FAILED
    except KeyboardInterrupt:
        say("Interrupted.")
        code = FAILED
    raise typer.Exit(code)
