"""The checkpoints of a run: one file per trajectory, and the one before it."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass

from actors.folder import Folder
from actors.lease import Fence
from actors.search import SearchKey
from gpo.checkpoint import Checkpoint, DamagedCheckpoint, decode, encode, require_whole
from gpo.errors import CheckpointError, StorageError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CheckpointStore:
    """Saves and finds checkpoints.

    The checkpoint before the last one is kept, too. The last one is damaged rarely, since it is replaced as a whole: by
    a failing disk, a mount that does not keep what it promises, a hand. But it stands for all that a trajectory has
    paid for, and from the one before it, half a step is done again.

    Attributes:
        folder: ``<task>/seed-<seed>.msgpack`` below it, and ``.previous`` beside. Every process of the run must reach
            it.
        fence: what keeps out a process that others have taken the run over from; ``None`` where there can be none.
    """

    folder: Folder
    fence: Fence | None = None

    def save(self, key: SearchKey, checkpoint: Checkpoint) -> None:
        """Replace the trajectory's checkpoint; see ``write``."""
        self.write(key, encode(checkpoint, str(key)))

    def write(self, key: SearchKey, content: bytes) -> None:
        """Replace the trajectory's checkpoint by one that is encoded. Blocks until it is safe; see ``Folder.write``.

        Raises:
            StorageError: it could not be written; the old one still stands. So it would go with other trajectories'.
            LeaseLost: another process has taken the run over; nothing was written.
        """
        name = _name(key)
        try:
            if self.fence is not None:
                self.folder.patiently(self.fence.check)
            self._keep(name)
            self.folder.write(name, content)
        except OSError as error:
            raise StorageError(f"{self.folder.path(name)} cannot be written: {error}") from None

    def load(self, key: SearchKey) -> Checkpoint | None:
        """The last checkpoint, or ``None`` where there is none yet. Changes nothing.

        Where the last one is damaged, the one before it takes its place, and a warning says so.

        Raises:
            CheckpointError: both are damaged, another program's, or another search's.
            StorageError: it is there and cannot be read.
        """
        name = _name(key)
        content = self._read(name)
        try:
            return None if content is None else decode(content, str(key))
        except DamagedCheckpoint as damage:
            return self._previous(key, damage)
        except CheckpointError as error:
            raise CheckpointError(f"{self.folder.path(name)}: {error}") from None

    def _previous(self, key: SearchKey, damage: DamagedCheckpoint) -> Checkpoint:
        name = _name(key)
        content = self._read(_previous(name))
        try:
            if content is None:
                raise damage
            checkpoint = decode(content, str(key))
        except CheckpointError:
            raise CheckpointError(
                f"{self.folder.path(name)}: {damage}; restore the file from a copy, or remove it, and the trajectory "
                "begins anew"
            ) from None
        log.warning("%s: %s; going on from the one before it", self.folder.path(name), damage)
        return checkpoint

    def _keep(self, name: str) -> None:
        """Keep the last checkpoint beside the one that takes its place, unless it is damaged."""
        content = self.folder.patiently(lambda: self.folder.read(name))
        if content is not None:
            with suppress(DamagedCheckpoint):  # the one before it is what is kept
                require_whole(content)
                self.folder.copy(name, _previous(name))

    def _read(self, name: str) -> bytes | None:
        try:
            return self.folder.read(name)
        except OSError as error:
            raise StorageError(f"{self.folder.path(name)} cannot be read: {error}") from None


def _name(key: SearchKey) -> str:
    return f"{key.task}/seed-{key.seed}.msgpack"


def _previous(name: str) -> str:
    return f"{name.removesuffix('.msgpack')}.previous"
