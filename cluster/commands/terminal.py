"""What commands put out, and beside it say to the user."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from rich.console import Console

from cluster.display import logs

if TYPE_CHECKING:
    from cluster.config import RunConfig

log = logging.getLogger(__name__)

out, err = Console(), Console(stderr=True)


def show(text: str) -> None:
    """Put out a line as it is, for people and scripts."""
    out.print(text, highlight=False, markup=False, soft_wrap=True)


def say(text: str, style: str | None = None) -> None:
    """Print a line for the user, beside what the command itself puts out."""
    if logs.chosen().owns_stderr:
        log.log(logging.ERROR if style == "red" else logging.INFO, "%s", text)
        return
    err.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def choose_logs(chosen: logs.Logs) -> None:
    """Log so from now on; where standard error is for JSON lines, nothing else is printed there."""
    logs.choose(chosen)
    err.quiet = chosen.owns_stderr


def ask_for_models(*configs: RunConfig) -> None:
    """See that every endpoint serves its model, before anything is paid for.

    Raises:
        ConfigError: one does not.
    """
    from cluster.session.preflight import check_models

    with err.status("Asking the endpoints for their models …"):
        for config in configs:
            asyncio.run(check_models(config))
