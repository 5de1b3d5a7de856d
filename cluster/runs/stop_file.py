"""The stop file: an empty file ``stop`` in a run's folder ends the run as Ctrl-C does, also from another machine."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from actors.folder import Folder
from cluster.results.stored_run import json_object
from gpo.errors import ConfigError, StorageError

STOP_FILE = "stop"
_RESULTS = {"summary.json": "run", "comparison.json": "comparison", "sweep.json": "sweep"}
_ENDED = ("completed", "interrupted", "budget_exhausted", "failed")


def stop_requested(folders: Sequence[Folder]) -> bool:
    """Whether one of the folders holds a stop file. A folder that cannot be read counts as one without."""
    for folder in folders:
        with suppress(OSError, ImportError, ValueError):
            if folder.read(STOP_FILE) is not None:
                return True
    return False


def withdraw_stop(folder: Folder) -> None:
    """Remove the stop file, if there is one.

    Raises:
        StorageError: it could not be removed.
    """
    try:
        folder.remove(STOP_FILE)
    except (OSError, ImportError, ValueError) as error:
        raise StorageError(f"{folder.path(STOP_FILE)} cannot be removed: {error}") from None


def request_stop(folder: Folder) -> None:
    """Write a stop file into the folder of a run, comparison or sweep.

    Raises:
        ConfigError: the folder holds none of them, cannot be read or written, or what it holds has ended.
    """
    try:
        texts = {name: folder.read(name) for name in (*_RESULTS, "config.yaml")}
    except (OSError, ImportError, ValueError) as error:
        raise ConfigError("RUN_DIR", f"{folder.url!r} cannot be read ({error})", "name a run's folder") from None
    found = [name for name, text in texts.items() if text is not None]
    if not found:
        raise ConfigError("RUN_DIR", f"{folder.url!r} holds no run", "name the folder of a run")
    kind, status = _RESULTS.get(found[0], "run"), json_object(texts[found[0]]).get("status")
    # A sweep that is resumed, or that several processes share, writes its status with the first heartbeat only.
    if status in (("completed",) if kind == "sweep" else _ENDED):
        raise ConfigError("RUN_DIR", f"the {kind} in {folder.url!r} has ended ({status})", "name one that is working")
    try:
        folder.write(STOP_FILE, b"")
    except (OSError, ImportError, ValueError) as error:
        problem = f"{folder.path(STOP_FILE)!r} cannot be written ({error})"
        raise ConfigError("RUN_DIR", problem, "create an empty file of this name there") from None
