"""The checkpoints of a run: one file per trajectory."""

from __future__ import annotations

from dataclasses import dataclass

from actors.folder import Folder
from actors.search import SearchKey
from gpo.checkpoint import Checkpoint, decode, encode
from gpo.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class CheckpointStore:
    """Saves and finds checkpoints.

    Attributes:
        folder: ``<task>/seed-<seed>.msgpack`` below it. Every process of the run must reach it.
    """

    folder: Folder

    def save(self, key: SearchKey, checkpoint: Checkpoint) -> None:
        """Replace the trajectory's checkpoint.

        Raises:
            CheckpointError: it could not be written; the old one still stands.
        """
        try:
            self.folder.write(_name(key), encode(checkpoint))
        except OSError as error:
            raise CheckpointError(f"{self.folder.path(_name(key))} cannot be written: {error}") from error

    def load(self, key: SearchKey) -> Checkpoint | None:
        """The last checkpoint, or ``None`` where there is none yet.

        Raises:
            CheckpointError: it is there and cannot be read.
        """
        try:
            content = self.folder.read(_name(key))
            return None if content is None else decode(content)
        except OSError as error:
            raise CheckpointError(f"{self.folder.path(_name(key))} cannot be read: {error}") from error
        except CheckpointError as error:
            raise CheckpointError(f"{self.folder.path(_name(key))}: {error}") from None


def _name(key: SearchKey) -> str:
    return f"{key.task}/seed-{key.seed}.msgpack"
