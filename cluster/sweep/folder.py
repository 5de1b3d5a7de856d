"""A sweep's folder: whether a sweep may start there, or be resumed or joined."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ValidationError

from actors.folder import Folder
from cluster.runs.run_folder import read_file, write_file
from cluster.runs.stop_file import withdraw_stop
from cluster.sweep.config import SweepConfig
from gpo.errors import ConfigError, StorageError


class _Stored(BaseModel):
    sweep_id: str
    started_at: str
    wall_s: float


@dataclass(frozen=True, slots=True)
class SweepFolder:
    """The folder, and what earlier attempts saved in it.

    Attributes:
        started_at: seconds since 1970.
        began: as for ``cluster.session.budget.TimeLimit``.
    """

    folder: Folder
    sweep_id: str
    started_at: float
    began: float

    @classmethod
    def open(
        cls, folder: Folder, config: SweepConfig, *, sweep_id: str, resume: bool, began: float | None = None
    ) -> SweepFolder:
        """Start a sweep in a folder, or resume the sweep that is there.

        Args:
            began: ``time.monotonic()`` at which this attempt began; by default, now.

        Raises:
            ConfigError: a sweep is there and ``resume`` is false; the folder holds something else, or cannot be used.
        """
        if any(read_file(folder, name) is not None for name in ("summary.json", "comparison.json")):
            raise ConfigError("--run-dir", f"{folder.url!r} holds a run, not a sweep", "name another folder")
        if read_file(folder, "config.yaml") is not None and not resume:
            raise ConfigError(
                "--run-dir",
                f"{folder.url!r} holds a sweep already",
                "add --resume to resume it or to join the processes that work on it, or name another folder",
            )
        stored = _stored(read_file(folder, "sweep.json"))
        began = time.monotonic() if began is None else began
        opened = cls(
            folder,
            stored.sweep_id if stored else sweep_id,
            datetime.fromisoformat(stored.started_at).timestamp()
            if stored
            else time.time() - (time.monotonic() - began),
            began - (stored.wall_s if stored else 0.0),
        )
        try:
            withdraw_stop(folder)
            write_file(folder, "config.yaml", config.dump().encode())
        except StorageError as error:
            raise ConfigError("--run-dir", str(error), "name another folder") from None
        return opened

    def trial_url(self, number: int) -> str:
        """URL of a trial's folder."""
        return (self.folder / "trials" / f"{number:04d}").url


def worked_s(folder: Folder) -> float:
    """Seconds of work in earlier attempts on the sweep in a folder.

    Raises:
        ConfigError: the folder cannot be read.
    """
    stored = _stored(read_file(folder, "sweep.json"))
    return stored.wall_s if stored else 0.0


def _stored(content: bytes | None) -> _Stored | None:
    """The stored values; ``None`` where they are damaged: the study and the trials' folders hold all that matters."""
    try:
        stored = None if content is None else _Stored.model_validate_json(content)
        if stored is not None:
            datetime.fromisoformat(stored.started_at)
    except (ValidationError, ValueError):
        return None
    return stored
