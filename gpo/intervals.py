"""Confidence intervals for scores.

An interval says which scores on new examples are plausible after the scores on some examples. The textbook interval,
mean ± 1.6 standard errors, has no width when all answers are right, and is too narrow near 0 and 1. The intervals here
are *score intervals* (Wilson, 1927): they contain each mean that a test at the same level does not reject.
"""

from __future__ import annotations

from math import nan, sqrt
from statistics import NormalDist

from gpo.score import Score

LEVEL = 0.9
"""How often an interval contains the true value, unless stated otherwise."""
_PRIOR_VALUES = 0.1
"""Weight of the assumption that graded values vary as much as values of 0 and 1, in examples. Values that happen to be
equal then still give an interval with a width. Chosen by simulation; see ``tests/unit/gpo/test_intervals.py``."""


def wilson(successes: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's interval for a share, within [0, 1]; it never has the width 0. (NaN, NaN) if ``n`` is 0.

    Args:
        successes: in [0, n]; may be a sum of graded values.
        n: number of examples, ≥ 0; may be an effective number of examples, such as mean · (1 - mean) / variance of the
            mean.
        level: in (0, 1).
    """
    return _score_interval(successes / n, n, _normal_quantile(level)) if n else (nan, nan)


def interval(score: Score, level: float = LEVEL) -> tuple[float, float]:
    """The interval for ``score.mean_of_scored`` on new examples, within [0, 1]; (NaN, NaN) without scored examples.

    It is Wilson's interval if all values are 0 or 1. Graded values vary less than values of 0 and 1 with the same mean,
    so each counts as more than one example. The number of examples is divided by the ratio of the two variances.
    Student's distribution replaces the normal one, since this ratio is estimated.

    Args:
        score: only its scored examples count.
        level: in (0, 1).
    """
    values, mean, n = score.scored, score.mean_of_scored, len(score.scored)
    largest = mean * (1 - mean)
    if n < 2 or largest == 0 or all(value in (0, 1) for value in values):
        return wilson(sum(values), n, level)
    # The import takes half a second.
    from scipy.special import stdtrit

    squares = sum((value - mean) ** 2 for value in values)
    ratio = (squares / largest + _PRIOR_VALUES) / (n - 1 + _PRIOR_VALUES)
    return _score_interval(mean, n / min(1.0, ratio), float(stdtrit(n - 1, (1 + level) / 2)))


def _score_interval(mean: float, n: float, quantile: float) -> tuple[float, float]:
    """The means that differ from the observed one by at most so many standard errors, each computed from itself."""
    shrinkage = quantile**2 / n
    centre = (mean + shrinkage / 2) / (1 + shrinkage)
    half = sqrt(shrinkage * (mean * (1 - mean) + shrinkage / 4)) / (1 + shrinkage)
    return max(0.0, centre - half), min(1.0, centre + half)


def _normal_quantile(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)
