"""The file that a user wants a result in."""

from __future__ import annotations

import os
from pathlib import Path

from gpo.errors import ConfigError


def require_writable(output: Path) -> None:
    """Find out before anything is paid for that the result could not be written.

    Raises:
        ConfigError: the file's folder is missing or closed to us, or the file is a folder.
    """
    folder = output.absolute().parent
    if not folder.is_dir():
        problem = "is in a folder that does not exist"
    elif output.is_dir():
        problem = "is a folder"
    elif not os.access(output if output.exists() else folder, os.W_OK):
        problem = "cannot be written (no permission)"
    else:
        return
    raise ConfigError("--output", f"{str(output)!r} {problem}", "name another")
