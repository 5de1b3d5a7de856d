"""What the best prompt of a search will score on new examples."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from gpo.intervals import LEVEL, wilson
from gpo.scoring.adaptive import fit_search
from gpo.trajectory import Trajectory

_CAUTION = 1.2
"""Factor on the standard error for what the model assumes: one difficulty per example, normal priors. With it, 90 %
intervals of 500 simulated searches cover the true score in about 90 %; ``python -m benchmarks.power.calibration``."""
_NEAR_CERTAIN = 1e-4


@dataclass(frozen=True, slots=True)
class Expected:
    """The expected score on new examples: its estimate and an interval, all in [0, 1]."""

    mean: float
    low: float
    high: float


@lru_cache(maxsize=256)
def expected_of_best(trajectory: Trajectory, level: float = LEVEL) -> Expected:
    """The score of the best prompt on new examples, as the response model estimates it.

    The best of many prompts was also lucky, so its score on ``val`` is too high on average. The model estimates the
    ability of each prompt together with those of all others, which takes most of that luck away.

    Args:
        level: how often the interval contains the true score, the choice of the prompt included.
    """
    fitted = fit_search(trajectory)
    mean, stderr = fitted.model.on_new_examples(fitted.rows[trajectory.best.prompt])
    mean = min(1 - _NEAR_CERTAIN, max(_NEAR_CERTAIN, mean))
    n = mean * (1 - mean) / (_CAUTION * stderr) ** 2
    return Expected(mean, *wilson(mean * n, n, level))
