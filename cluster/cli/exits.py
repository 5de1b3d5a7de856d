"""How a command ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from cluster import commands
from cluster.interrupts import stoppable
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
        commands.say(f"gpo: error: {error}", style="red")
        code = commands.BAD_CONFIG if isinstance(error, ConfigError) else commands.FAILED
    except KeyboardInterrupt:
        commands.say("Interrupted.")
        code = commands.FAILED
    raise typer.Exit(code)
