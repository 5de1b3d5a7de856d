"""A sweep's folder: whether a sweep may be started, joined or resumed there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ValidationError

from actors.folder import Folder
from actors.lease import RENEWED_EVERY_S, TERM_S, LeaseHeld, Leases
from cluster.runs.run_folder import RunFolder
from cluster.sweep.loading import SweepConfig
from cluster.sweep.results import write
from gpo.errors import ConfigError, StorageError


class _Stored(BaseModel):
    sweep_id: str
    started_at: str
    wall_s: float


@dataclass(frozen=True, slots=True)
class SweepFolder:
    """The folder, and what earlier sittings in it left.

    Attributes:
        started_at: seconds since 1970.
        wall_s: seconds of earlier sittings.
    """

    folder: Folder
    sweep_id: str
    started_at: float
    wall_s: float

    def of_trial(self, number: int) -> str:
        """URL of a trial's folder."""
        return (self.folder / "trials" / f"{number:04d}").url


def open_place(folder: Folder, config: SweepConfig, *, sweep_id: str, resume: bool) -> SweepFolder:
    """Begin a sweep in a folder, or go on with the one that is there.

    Raises:
        ConfigError: there is one and ``resume`` was not asked for; the folder holds something else, or cannot be used.
    """
    try:
        mine, config_file = folder.read("sweep.json"), folder.read("config.yaml")
        others = [name for name in ("summary.json", "comparison.json") if folder.read(name) is not None]
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(
            "--run-dir", f"{folder.url!r} cannot be read ({error})", "name a folder or fsspec URL"
        ) from None
    if others:
        raise ConfigError("--run-dir", f"{folder.url!r} holds a run, not a sweep", "name another")
    if config_file is not None and not resume:
        raise ConfigError(
            "--run-dir",
            f"{folder.url!r} holds a sweep already",
            "add --resume to go on with it, or to work on it beside the process that does, or name another",
        )
    stored = _stored(mine)
    place = SweepFolder(
        folder,
        stored.sweep_id if stored else sweep_id,
        datetime.fromisoformat(stored.started_at).timestamp() if stored else time.time(),
        stored.wall_s if stored else 0.0,
    )
    try:
        write(folder, "config.yaml", config.dump().encode())
    except StorageError as error:
        raise ConfigError("--run-dir", str(error), "name another folder") from None
    return place


def _stored(content: bytes | None) -> _Stored | None:
    """What it says; nothing where it is damaged: all that matters is in the study and the trials' folders."""
    try:
        stored = None if content is None else _Stored.model_validate_json(content)
        if stored is not None:
            datetime.fromisoformat(stored.started_at)
    except (ValidationError, ValueError):
        return None
    return stored


_LOOK_S = 1.0


@asynccontextmanager
async def leased_folder(place: Folder) -> AsyncGenerator[RunFolder]:
    """Hold a folder's lease in this context; whoever lost it writes nothing more there.

    The study says whose trial it is, and the lease whose folder: a process that was suspended learns only from this one
    that another has taken its trial over, and its actors look at nothing else before they write. Where the trial is
    ours and the folder another's, that one is about to learn it, or its lease is about to run out: it is waited for.

    Raises:
        LeaseHeld: another process goes on working there.
        OSError: the folder cannot be read or written.
    """
    leases, deadline = Leases(), time.monotonic() + TERM_S + RENEWED_EVERY_S
    try:
        while True:
            try:
                await asyncio.to_thread(leases.take, place)
                break
            except LeaseHeld:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_LOOK_S)
        yield RunFolder(place, leases)
    finally:
        await asyncio.to_thread(leases.release)
