"""Where runs on this machine say at which address they can be scraped, in the form of Prometheus' ``file_sd``."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from gpo.cache.store import cache_folder

_PID = "__gpo_pid"


def targets_folder() -> Path:
    """One file for each run."""
    return cache_folder() / "monitoring" / "targets"


def announce(run: str, address: str) -> None:
    """Say where a run of this process can be scraped.

    Raises:
        OSError: it cannot be kept.
    """
    file = _file(run)
    file.parent.mkdir(parents=True, exist_ok=True)
    # Labels with two underscores are for whoever reads the file; Prometheus drops them.
    labels = {"namespace": "local", _PID: str(os.getpid())}
    new = file.with_suffix(".new")
    new.write_text(json.dumps([{"targets": [address], "labels": labels}]), encoding="utf-8")
    new.rename(file)


def withdraw(run: str) -> None:
    """The run cannot be scraped any more."""
    with suppress(OSError):
        _file(run).unlink(missing_ok=True)


def withdraw_dead() -> None:
    """Likewise for all runs whose process ended without saying so."""
    for file in targets_folder().glob("*.json"):
        try:
            os.kill(int(json.loads(file.read_text(encoding="utf-8"))[0]["labels"][_PID]), 0)
        except PermissionError:
            continue  # somebody's process
        except (OSError, ValueError, LookupError, TypeError, OverflowError):
            with suppress(OSError):
                file.unlink(missing_ok=True)


def _file(run: str) -> Path:
    return targets_folder() / f"{run}.json"
