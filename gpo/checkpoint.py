"""A search as bytes: msgpack, with the version of its schema inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import msgpack
from pydantic import TypeAdapter, ValidationError

from gpo.errors import CheckpointError
from gpo.evaluation import Evaluation
from gpo.prompt import Prompt
from gpo.trajectory import Spending, Trajectory

SCHEMA_VERSION = 3
"""Raised by one whenever an older program could misread what is written."""
_READABLE = (2, SCHEMA_VERSION)
"""Version 2 knew no partial scores, and is read as it is."""


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


def encode(checkpoint: Checkpoint) -> bytes:
    """The checkpoint as msgpack: maps of plain values, nothing that could run when it is read."""
    document = {"schema": SCHEMA_VERSION, **_adapter().dump_python(checkpoint, mode="python")}
    return bytes(msgpack.packb(document, use_bin_type=True))


def decode(data: bytes) -> Checkpoint:
    """The checkpoint that ``encode`` wrote; ``decode(encode(c)) == c``.

    Raises:
        CheckpointError: the bytes are cut short, damaged, or of another schema version.
    """
    try:
        document: Any = msgpack.unpackb(data, raw=False, strict_map_key=True)
    except (ValueError, msgpack.UnpackException) as error:
        raise CheckpointError(f"the checkpoint is damaged: {error}") from None
    version = document.pop("schema", None) if isinstance(document, dict) else None
    if version not in _READABLE:
        raise CheckpointError(
            f"the checkpoint has schema version {version!r}, this program reads {' and '.join(map(str, _READABLE))}; "
            "resume with the version that wrote it, or start a new run"
        )
    try:
        return _adapter().validate_python(document)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise CheckpointError(f"the checkpoint is damaged at {field}: {first['msg']}") from None
