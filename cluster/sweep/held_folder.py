"""The folder of a population, which one process works in at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from actors.folder import Folder
from actors.lease import RENEWED_EVERY_S, TERM_S, LeaseHeld
from actors.leases import Leases
from cluster.run_folder import RunFolder

_LOOK_S = 1.0


@asynccontextmanager
async def held_folder(place: Folder) -> AsyncGenerator[RunFolder]:
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
