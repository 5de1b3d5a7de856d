"""A search as bytes: msgpack, with the version of its schema, whose it is, and a checksum inside."""

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
"""Raised by one whenever an older program could misread what is written."""
_UNSEALED = (2, 3)
"""Versions before there were checksums, which are read as they are. Version 2 knew no partial scores."""
_NAMELESS = 4
"""The version that has a checksum and does not say whose it is."""
_READABLE = (*_UNSEALED, _NAMELESS, SCHEMA_VERSION)


class DamagedCheckpoint(CheckpointError):
    """The bytes are not those that were written; an earlier checkpoint may be whole."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything that one search has paid for.

    Attributes:
        trajectory: the search itself.
        test: prompt id → evaluation on the ``test`` split, of the initial and the final prompt. It stands outside the
            trajectory because it never steers the search.
    """

    trajectory: Trajectory
    test: Mapping[str, Evaluation]

    @property
    def spending(self) -> Spending:
        """What the search cost, its evaluations on ``test`` included."""
        return sum((evaluation.spending for evaluation in self.test.values()), start=self.trajectory.spending)

    def with_test(self, prompt: Prompt, evaluation: Evaluation) -> Checkpoint:
        """The checkpoint with one more evaluation on ``test``."""
        return replace(self, test={**self.test, prompt.id: evaluation})


@cache
def _adapter() -> TypeAdapter[Checkpoint]:
    return TypeAdapter(Checkpoint)


def encode(checkpoint: Checkpoint, of: str = "") -> bytes:
    """The checkpoint as msgpack: maps of plain values, nothing that could run when it is read.

    The checkpoint proper is packed by itself and stands as bytes beside its version and their common checksum, so that
    every later version can be told from damage before anything in it is understood.

    Args:
        of: names the search.
    """
    content = bytes(msgpack.packb(_adapter().dump_python(checkpoint, mode="python"), use_bin_type=True))
    checksum = _checksum(SCHEMA_VERSION, of, content)
    sealed = {"schema": SCHEMA_VERSION, "of": of, "blake2b": checksum, "checkpoint": content}
    return bytes(msgpack.packb(sealed, use_bin_type=True))


def decode(data: bytes, of: str = "") -> Checkpoint:
    """The checkpoint that ``encode`` wrote; ``decode(encode(c, name), name) == c``.

    Args:
        of: names the search whose it must be; empty where that is all the same.

    Raises:
        DamagedCheckpoint: the bytes are cut short or changed.
        CheckpointError: they are another search's, or of another schema version.
    """
    version, document = _opened(data)
    content: Any = document
    owner = ""
    if version not in _UNSEALED and version in _READABLE:
        packed = document.get("checkpoint")
        content = _unpacked(packed) if isinstance(packed, bytes) else None
        owner = document.get("of", "")
    if version not in _READABLE:
        *earlier, last = map(str, _READABLE)
        raise CheckpointError(
            f"the checkpoint has schema version {version!r}, this program reads {', '.join(earlier)} and {last}; "
            "resume with the version that wrote it, or start a new run"
        )
    if of and owner and owner != of:
        raise CheckpointError(
            f"the checkpoint is that of {owner}, not of {of}; restore the file from a copy, or remove it, and the "
            "trajectory begins anew"
        )
    try:
        return _adapter().validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise DamagedCheckpoint(f"the checkpoint is damaged at {field}: {first['msg']}") from None


def require_whole(data: bytes) -> None:
    """Look at the checksum alone, which takes no time; bytes from before there were any pass.

    Raises:
        DamagedCheckpoint: it does not fit.
    """
    _opened(data)


def _opened(data: bytes) -> tuple[int, dict[str, Any]]:
    """The version, and what stands beside it; what is sealed is whole."""
    document = _unpacked(data)
    version = document.pop("schema", None) if isinstance(document, dict) else None
    if not isinstance(version, int):
        raise DamagedCheckpoint("the checkpoint is damaged: it names no schema version")
    content = document.get("checkpoint")
    if version not in _UNSEALED and isinstance(content, bytes):
        of = "" if version == _NAMELESS else document.get("of")
        if not isinstance(of, str) or document.get("blake2b") != _checksum(version, of, content):
            raise DamagedCheckpoint("the checkpoint is damaged: its checksum does not match")
    return version, document


def _unpacked(data: bytes) -> Any:
    try:
        return msgpack.unpackb(data, raw=False, strict_map_key=True)
    except (ValueError, msgpack.UnpackException) as error:
        raise DamagedCheckpoint(f"the checkpoint is damaged: {error}") from None


def _checksum(version: int, of: str, content: bytes) -> bytes:
    # Over the version as well: no flipped bit makes damage look like the work of another program.
    head = f"{version}:" if version == _NAMELESS else f"{version}:{len(of)}:{of}:"
    return blake2b(head.encode() + content, digest_size=16).digest()
