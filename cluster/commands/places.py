"""Where results go, and what to type to go on with them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gpo.errors import ConfigError

if TYPE_CHECKING:
    from actors.folder import Folder
    from cluster.runs.run_folder import RunFolder


def folder_at(field: str, place: str) -> Folder:
    """The folder that the user named there.

    Raises:
        ConfigError: it cannot be one, or has a password in it.
    """
    from actors.folder import Folder
    from cluster.config.secrets import refuse_credentials

    refuse_credentials(field, place)
    try:
        return Folder.at(place)
    except (RuntimeError, ValueError) as error:  # no such user's home, a NUL
        raise ConfigError(field, f"{place!r} is no folder ({error})", "name another") from None


def results_folder(parent: str, name: str, run_id: str, run_dir: str | None, resume: bool) -> RunFolder:
    """Where a command's results go: ``--run-dir``, or a folder below ``run.dir``, the newest one where it goes on.

    Raises:
        ConfigError: what was named can be no folder.
    """
    from cluster.runs.run_folder import RunFolder, latest_run

    if run_dir is not None:
        if not run_dir.strip():
            raise ConfigError("--run-dir", "is empty", "name a folder, or leave the option out")
        return RunFolder(folder_at("--run-dir", run_dir))
    runs = folder_at("run.dir", parent)
    newest = latest_run(runs, name) if resume else None
    return RunFolder(newest or runs / run_id)


def valid_run_id(run_id: str) -> str:
    """The same.

    Raises:
        ConfigError: it cannot be a folder's name.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,149}", run_id):
        raise ConfigError("--run-id", f"{run_id!r} cannot be used", "use letters, digits, '.', '_' and '-'")
    return run_id


def resume_command(
    command: str, place: Folder, config: Sequence[str], address: str | None, options: Sequence[str] = ()
) -> str:
    """What to type to go on.

    Args:
        config: the configuration's file and the options that change it.
        address: what was typed as such.
        options: others that were typed.
    """
    where = ["--address", address] if address else []
    run_dir = ["--run-dir", str(place.local or place.url)]
    return shlex.join(["gpo", command, *config, *options, *run_dir, *where, "--resume"])


def repeated(option: str, values: Sequence[str]) -> list[str]:
    """An option that was typed so often, once more."""
    return [part for value in values for part in (option, value)]
