"""Files with which runs on this machine announce their address to ``gpo monitor``, in Prometheus' ``file_sd`` form."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from gpo.cache.store import cache_folder

_PID = "__gpo_pid"


def targets_folder() -> Path:
    """The folder with one file for each run."""
    return cache_folder() / "monitoring" / "targets"


def announce(run: str, address: str) -> None:
    """Announce the address of a run of this process.

    Raises:
        OSError: the file cannot be written.
    """
    file = _file(run)
    file.parent.mkdir(parents=True, exist_ok=True)
    # Prometheus drops labels that start with two underscores.
    labels = {"namespace": "local", _PID: str(os.getpid())}
    new = file.with_suffix(".new")
    new.write_text(json.dumps([{"targets": [address], "labels": labels}]), encoding="utf-8")
    new.rename(file)


def withdraw(run: str) -> None:
    """Remove the announcement of a run."""
    with suppress(OSError):
        _file(run).unlink(missing_ok=True)


def withdraw_dead() -> None:
    """Remove the announcements of runs whose process has died."""
    for file in targets_folder().glob("*.json"):
        try:
            os.kill(int(json.loads(file.read_text(encoding="utf-8"))[0]["labels"][_PID]), 0)
        except PermissionError:
            continue  # alive, and owned by another user
        except (OSError, ValueError, LookupError, TypeError, OverflowError):
            with suppress(OSError):
                file.unlink(missing_ok=True)


def _file(run: str) -> Path:
    return targets_folder() / f"{run}.json"
