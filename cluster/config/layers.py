"""Sections laid over sections: of a file over those that it extends, of a method over a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_DEFAULT_KINDS = {
    "models.task": "openai",
    "models.optimizer": "openai",
    "models.judge": "openai",
    "models.embedding": "embedded",
    "cache": "sqlite",
    "optimizer.direction.trajectory": "retrieval",
    "optimizer.schedule": "cosine",
    "optimizer.refinement": "generation",
    "optimizer.acceptance": "best_of_step",
}
"""Section → the kind that it is of where it does not say."""

_ONE_OF = {"steps": "epochs", "epochs": "steps"}
"""Two ways to say how long a search is."""


def laid_over(base: Mapping[str, Any], changes: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """Sections merged option by option; anything else, lists too, is replaced.

    A section of another ``kind`` replaces the one below it: the options of one kind mean nothing to another. A section
    that does not name its kind changes options of the one below it; a model that is named is one of an endpoint.
    ``optimizer.steps`` and ``optimizer.epochs`` take each other's place.

    Args:
        place: of both within the whole, such as ``optimizer.schedule``.
    """
    merged = dict(base)
    for name, value in changes.items():
        below, here = merged.get(name), f"{place}.{name}".removeprefix(".")
        if isinstance(below, dict) and isinstance(value, dict) and _is_same_kind(below, value, here):
            merged[name] = laid_over(below, value, here)
        else:
            merged[name] = value
    if place == "optimizer":
        take_the_place_of_the_other(merged, changes)
    return merged


def take_the_place_of_the_other(optimizer: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Drop ``steps`` where the changes say ``epochs``, and the other way round."""
    for option, other in _ONE_OF.items():
        if changes.get(option) is not None and other not in changes:
            optimizer.pop(other, None)


def _is_same_kind(below: Mapping[str, Any], value: Mapping[str, Any], place: str) -> bool:
    known = below.get("kind", _DEFAULT_KINDS.get(place))
    if place.startswith("models.") and "model" in value and "kind" not in value:
        return bool(known == "openai")
    return bool(value.get("kind", known) == known)
