"""Whether the user's functions and the models' weights are those that a run or a sweep began with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from cluster.config import RunConfig
from cluster.config.functions import reference
from cluster.config.models import EmbeddedChatConfig, FunctionChatConfig
from gpo.data.task import Task, function_digests
from gpo.errors import ConfigError

_MODELS = "models"


def fingerprints_of_functions(config: RunConfig, tasks: Sequence[Task]) -> dict[str, dict[str, str]]:
    """Task, or ``models`` → the option that names a function or weights → a digest of their content.

    Raises:
        EvaluationError: a function cannot be loaded.
    """
    return {**{task.name: function_digests(task) for task in tasks}, _MODELS: _model_digests(config)}


def require_same_functions(
    known: Mapping[str, Any], functions: Mapping[str, Mapping[str, str]], *, where: str, remedy: str
) -> None:
    """Refuse a metric, parser, program or model that has changed: the scores would not compare.

    Args:
        known: those that the work began with; what it does not contain is not compared.
        functions: those of now.
        where: the run or the study, for the error.
        remedy: how to begin anew, for the error.

    Raises:
        ConfigError: one has changed.
    """
    for index, (owner, digests) in enumerate(functions.items()):
        before = known.get(owner)
        for option, digest in digests.items():
            if isinstance(before, dict) and before.get(option, digest) != digest:
                what = "file" if option.endswith(".gguf") else "function"
                raise ConfigError(
                    f"models.{option}" if owner == _MODELS else f"tasks[{index}].{option}",
                    f"the {what} is not the one that {where} began with",
                    f"restore it, or {remedy}",
                )


def _model_digests(config: RunConfig) -> dict[str, str]:
    """A digest of the function or of the weights of each model that has one; each with the option that names it."""
    digests: dict[str, str] = {}
    for role in ("task", "optimizer", "judge"):
        model = getattr(config.models, role)
        if isinstance(model, FunctionChatConfig):
            digests[f"{role}.function"] = reference(model.function, model.folder).digest()
        # A missing file is reported when the models are checked.
        elif isinstance(model, EmbeddedChatConfig) and model.gguf is not None and model.gguf.is_file():
            digests[f"{role}.gguf"] = _sampled_digest(model.gguf)
    return digests


_NUM_BLOCKS, _BLOCK_BYTES = 64, 65_536


def _sampled_digest(path: Path) -> str:
    """A digest of a file's size and of blocks in equal distances: reading gigabytes would delay the start."""
    size = path.stat().st_size
    digest = blake2b(str(size).encode(), digest_size=8)
    with path.open("rb") as file:
        for index in range(_NUM_BLOCKS):
            file.seek(index * size // _NUM_BLOCKS)
            digest.update(file.read(_BLOCK_BYTES))
    return digest.hexdigest()
