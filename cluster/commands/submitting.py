"""The command that has a cluster do it: ``submit``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.commands.places import valid_run_id
from cluster.commands.terminal import say
from gpo.errors import ConfigError

if TYPE_CHECKING:
    from cluster.submitting.command import SubmitOptions


def submit(
    config_path: Path | None, overrides: list[str], address: str | None, what: SubmitOptions, action: str | None
) -> int:
    """``gpo submit``."""
    from cluster.config.secrets import refuse_credentials
    from cluster.submitting import command

    refuse_credentials("--run-dir", what.run_dir or "")
    if action is not None:
        return command.act(action, what.run_id or "", address, say)
    if config_path is None:
        raise ConfigError("CONFIG", "is missing", "name a YAML file, or use --status or --stop")
    run_id = valid_run_id(what.run_id) if what.run_id else None
    return command.submit(config_path, overrides, address, replace(what, run_id=run_id), say)
