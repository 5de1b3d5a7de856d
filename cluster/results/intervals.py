"""Scores and their intervals, as in the files of a run."""

from __future__ import annotations

from math import isnan
from typing import Any

from gpo.intervals import LEVEL, interval
from gpo.score import Score, finite

_DECIMALS = 4


def rounded(value: float) -> float | None:
    """A score with four decimals, enough to distinguish means over 5,000 examples; ``None`` for NaN and infinity."""
    known = finite(value)
    return None if known is None else round(known, _DECIMALS)


def interval_document(ends: tuple[float, float]) -> dict[str, Any] | None:
    """``level``, ``low`` and ``high`` of an interval at the default level; ``None`` if there is none."""
    if isnan(ends[0]):
        return None
    return {"level": LEVEL, "low": round(ends[0], _DECIMALS), "high": round(ends[1], _DECIMALS)}


def score_interval(score: Score) -> dict[str, Any] | None:
    """The interval of a mean; ``None`` for a dropped candidate, since its estimated mean is rough."""
    is_rough = score.partial is not None and score.partial.stderr is None
    return None if is_rough else interval_document(interval(score))
