"""The checkpoints of a run: the last one and the one before it, of each trajectory."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass

from actors.folder import Folder
from actors.lease import Fence
from actors.search import SearchKey
from gpo.checkpoint import Checkpoint, DamagedCheckpoint, decode, encode, require_intact
from gpo.errors import CheckpointError, StorageError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CheckpointStore:
    """Saves and loads checkpoints.

    Files are replaced as a whole, so the last checkpoint is rarely damaged: by a failing disk, an unreliable mount or a
    user. But it is all that a trajectory has paid for, so the previous one is kept, too; resuming from that one repeats
    half a step.

    Attributes:
        folder: contains ``<task>/seed-<seed>.msgpack`` and ``.previous``. Every process of the run must reach it.
        fence: stops a process whose run another process has taken over; ``None`` if none can.
    """

    folder: Folder
    fence: Fence | None = None

    def save(self, key: SearchKey, checkpoint: Checkpoint) -> None:
        """Replace the trajectory's checkpoint; see ``write``."""
        self.write(key, encode(checkpoint, str(key)))

    def write(self, key: SearchKey, content: bytes) -> None:
        """Replace the trajectory's checkpoint by an encoded one. Blocks until it is safe; see ``Folder.write``.

        Raises:
            StorageError: the file could not be written, and the old one remains. Other trajectories would fail alike.
            LeaseLost: another process has taken the run over; nothing was written.
        """
        name = _name(key)
        try:
            if self.fence is not None:
                self.folder.with_retries(self.fence.check)
            self._keep_previous(name)
            self.folder.write(name, content)
        except OSError as error:
            raise StorageError(f"{self.folder.path(name)} cannot be written: {error}") from None

    def load(self, key: SearchKey) -> Checkpoint | None:
        """The last checkpoint, or ``None`` if there is none yet. Never modifies a file.

        If the last checkpoint is damaged, the previous one is used, with a warning.

        Raises:
            CheckpointError: both are damaged, or of another schema version or search.
            StorageError: the file exists and cannot be read.
        """
        name = _name(key)
        content = self._read(name)
        try:
            return None if content is None else decode(content, str(key))
        except DamagedCheckpoint as damage:
            return self._load_previous(key, damage)
        except CheckpointError as error:
            raise CheckpointError(f"{self.folder.path(name)}: {error}") from None

    def _load_previous(self, key: SearchKey, damage: DamagedCheckpoint) -> Checkpoint:
        name = _name(key)
        content = self._read(_previous_name(name))
        try:
            if content is None:
                raise damage
            checkpoint = decode(content, str(key))
        except CheckpointError:
            raise CheckpointError(
                f"{self.folder.path(name)}: {damage}; restore the file from a copy, or remove it to start the "
                "trajectory again"
            ) from None
        log.warning("%s: %s; continuing from the previous checkpoint", self.folder.path(name), damage)
        return checkpoint

    def _keep_previous(self, name: str) -> None:
        """Copy the last checkpoint, unless it is damaged: a damaged file never replaces an intact one."""
        content = self.folder.with_retries(lambda: self.folder.read(name))
        if content is not None:
            with suppress(DamagedCheckpoint):
                require_intact(content)
                self.folder.copy(name, _previous_name(name))

    def _read(self, name: str) -> bytes | None:
        try:
            return self.folder.read(name)
        except OSError as error:
            raise StorageError(f"{self.folder.path(name)} cannot be read: {error}") from None


def _name(key: SearchKey) -> str:
    return f"{key.task}/seed-{key.seed}.msgpack"


def _previous_name(name: str) -> str:
    return f"{name.removesuffix('.msgpack')}.previous"
