"""Presets: sets of defaults for the options that decide how a search works."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

PresetName = Literal["efficient", "paper"]

PAPER: Mapping[str, Any] = {
    "optimizer": {
        "direction": {"trajectory": {"kind": "retrieval", "by": "relevance", "k": 3}},
        "acceptance": {"kind": "best_of_step"},
    },
    "evaluation": {"scoring": {"kind": "full"}},
}
"""What ``preset: paper`` changes. The sections themselves state the defaults of ``efficient``."""


def with_preset(data: Any) -> Any:
    """The sections of a configuration, with the preset's values for options that are left out."""
    if not isinstance(data, dict) or data.get("preset") != "paper":
        return data
    return _filled(data, PAPER)


def _filled(data: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    filled = dict(data)
    for name, default in defaults.items():
        known = filled.get(name)
        if known is None:
            filled[name] = default
        # A section of another kind has other options.
        elif isinstance(known, dict) and isinstance(default, dict) and _is_same_kind(known, default):
            filled[name] = _filled(known, default)
    return filled


def _is_same_kind(known: Mapping[str, Any], default: Mapping[str, Any]) -> bool:
    # Of the sections in a preset, only a trajectory that names no kind has the preset's kind.
    return "kind" not in default or known.get("kind", "retrieval") == default["kind"]
