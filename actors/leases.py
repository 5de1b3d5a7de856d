"""The leases that a command holds while it works."""

from __future__ import annotations

import atexit
import logging
import threading
from contextlib import suppress
from typing import Self

from actors.folder import Folder
from actors.lease import RENEWED_EVERY_S, Fence, Lease, LeaseLost

log = logging.getLogger(__name__)


class Leases:
    """Takes leases on folders, renews them in a thread of its own, and releases them in the end.

    A context manager; what is not left by it is released when the interpreter exits.

    Args:
        renewed_every_s: how often they are renewed, in seconds.
    """

    def __init__(self, renewed_every_s: float = RENEWED_EVERY_S) -> None:
        self._renewed_every_s = renewed_every_s
        self._held: dict[str, Lease] = {}
        self._lost: LeaseLost | None = None
        self._over = threading.Event()
        self._writing = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def take(self, folder: Folder) -> None:
        """Take a folder's lease; see ``Lease.take``. One that is held already stays as it is.

        Raises:
            LeaseHeld, OSError: as there.
        """
        if folder.url in self._held:
            return
        lease = Lease.take(folder)
        if not self._held:
            self._over = threading.Event()
            atexit.register(self.release)
            threading.Thread(target=self._renew_all, args=[self._over], name="leases", daemon=True).start()
        self._held = {**self._held, folder.url: lease}

    def fence(self, folder: Folder) -> Fence | None:
        """What keeps a process out that has lost the folder's lease; ``None`` where none was taken."""
        lease = self._held.get(folder.url)
        return lease.fence if lease else None

    def require_held(self) -> None:
        """Stop, once one of the leases is known to be lost. Asks nobody.

        Raises:
            LeaseLost: it is.
        """
        if self._lost is not None:
            raise LeaseLost(str(self._lost))

    def release(self) -> None:
        """Let others have the folders; a lease that cannot be released runs out."""
        self._over.set()
        with self._writing:  # or a renewal under way would be the last word
            held, self._held = self._held, {}
            for lease in held.values():
                with suppress(LeaseLost, OSError):
                    lease.release()
        atexit.unregister(self.release)

    def _renew_all(self, over: threading.Event) -> None:
        while not over.wait(self._renewed_every_s):
            with self._writing:
                for url, lease in self._held.items():
                    self._renew(url, lease)

    def _renew(self, url: str, lease: Lease) -> None:
        try:
            lease.renew()
        except LeaseLost as lost:
            self._lost = lost
        except OSError as error:  # for now; another process may take it over once it is silent for too long
            log.warning("the lease on %s cannot be renewed: %s", url, error)
