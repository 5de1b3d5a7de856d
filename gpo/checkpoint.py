"""Encodes a search as bytes: msgpack with the schema version, the name of the search and a checksum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from hashlib import blake2b
from typing import Any

import msgpack
from pydantic import TypeAdapter, ValidationError

from gpo.errors import CheckpointError
from gpo.evaluation.evaluator import Evaluation
from gpo.prompt import Prompt
from gpo.trajectory import Spending, Trajectory

SCHEMA_VERSION = 5
"""Increased whenever an older program could misread what this one writes."""


class DamagedCheckpoint(CheckpointError):
    """The bytes are not those that were written. An earlier checkpoint may be intact."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything that one search has paid for.

    Attributes:
        trajectory: the search itself.
        test: prompt id → evaluation on the ``test`` split, of the initial and the final prompt. It is not part of the
            trajectory, because it never steers the search.
    """

    trajectory: Trajectory
    test: Mapping[str, Evaluation]

    @property
    def spending(self) -> Spending:
        """What the search cost, including its evaluations on ``test``."""
        return sum((evaluation.spending for evaluation in self.test.values()), start=self.trajectory.spending)

    def with_test(self, prompt: Prompt, evaluation: Evaluation) -> Checkpoint:
        """The checkpoint with one more evaluation on ``test``."""
        return replace(self, test={**self.test, prompt.id: evaluation})


@cache
def _adapter() -> TypeAdapter[Checkpoint]:
    return TypeAdapter(Checkpoint)


def encode(checkpoint: Checkpoint, name: str = "") -> bytes:
    """Encode a checkpoint as msgpack: maps of plain values, so that reading it executes nothing.

    Args:
        name: of the search.
    """
    return _seal(bytes(msgpack.packb(_adapter().dump_python(checkpoint, mode="python"), use_bin_type=True)), name)


def decode(data: bytes, name: str = "") -> Checkpoint:
    """Decode what ``encode`` wrote; ``decode(encode(c, name), name) == c``.

    Args:
        name: the search that the checkpoint must belong to; empty for any.

    Raises:
        DamagedCheckpoint: the bytes are truncated or changed.
        CheckpointError: they belong to another search, or have another schema version.
    """
    version, owner, content = _open(data)
    if version != SCHEMA_VERSION:
        raise CheckpointError(
            f"the checkpoint has schema version {version}, this program reads {SCHEMA_VERSION}; resume with the "
            "version that wrote it, or start a new run"
        )
    if name and owner and owner != name:
        raise CheckpointError(
            f"the checkpoint belongs to {owner}, not to {name}; restore the file from a copy, or remove it to start "
            "the trajectory again"
        )
    try:
        return _adapter().validate_python(_unpack(content))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise DamagedCheckpoint(f"the checkpoint is damaged at {field}: {first['msg']}") from None


def require_intact(data: bytes) -> None:
    """Verify the checksum alone, which is fast.

    Raises:
        DamagedCheckpoint: it does not match.
    """
    _open(data)


def _seal(content: bytes, name: str, version: int = SCHEMA_VERSION) -> bytes:
    # The content is packed separately, so that the version and the checksum of any version can be read before
    # the content is decoded.
    checksum = _checksum(version, name, content)
    document = {"schema": version, "of": name, "blake2b": checksum, "checkpoint": content}
    return bytes(msgpack.packb(document, use_bin_type=True))


def _open(data: bytes) -> tuple[int, str, bytes]:
    """The schema version, the name of the search and the content, verified unless another version has another form."""
    document = _unpack(data)
    version = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(version, int):
        raise DamagedCheckpoint("the checkpoint is damaged: it names no schema version")
    name, content = document.get("of"), document.get("checkpoint")
    if isinstance(name, str) and isinstance(content, bytes):
        if document.get("blake2b") != _checksum(version, name, content):
            raise DamagedCheckpoint("the checkpoint is damaged: its checksum does not match")
        return version, name, content
    if version == SCHEMA_VERSION:
        raise DamagedCheckpoint("the checkpoint is damaged: a part is missing")
    return version, "", b""


def _unpack(data: bytes) -> Any:
    try:
        return msgpack.unpackb(data, raw=False, strict_map_key=True)
    except (ValueError, msgpack.UnpackException) as error:
        raise DamagedCheckpoint(f"the checkpoint is damaged: {error}") from None


def _checksum(version: int, name: str, content: bytes) -> bytes:
    # Includes the version, so that no flipped bit makes a damaged checkpoint look like one of another version.
    return blake2b(f"{version}:{len(name)}:{name}:".encode() + content, digest_size=16).digest()
