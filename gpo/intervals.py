"""Confidence intervals for scores, and for the difference between two scores.

An interval says which scores on new examples are plausible after the scores on some examples. The textbook interval,
mean ± 1.6 standard errors, has no width when all answers are right, and is too narrow near 0 and 1. The intervals here
are *score intervals* (Wilson, 1927): they contain each mean that a test at the same level does not reject.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isclose, nan, sqrt
from statistics import NormalDist, fmean

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
    return _score_interval(successes / n, n, NormalDist().inv_cdf((1 + level) / 2)) if n else (nan, nan)


def interval(score: Score, level: float = LEVEL) -> tuple[float, float]:
    """The interval for ``score.mean_of_scored`` on new examples, within [0, 1]; (NaN, NaN) without scored examples.

    It is Wilson's interval if all values are 0 or 1. If the mean is an estimate with a standard error, it is Wilson's
    interval for as many examples as would give this error.

    Args:
        score: only its scored examples count.
        level: in (0, 1).
    """
    if score.partial is not None and score.partial.stderr is not None:
        mean = min(1.0, max(0.0, score.partial.mean))
        error = min(0.5, score.partial.stderr)
        # A mean of 0 or 1 would be certain.
        largest = max(mean * (1 - mean), error * (1 - error), 0.25 / score.num_examples)
        # The examples of val are themselves a sample.
        n = largest / (error**2 + largest / score.num_examples)
        return wilson(mean * n, n, level)
    return interval_of_mean([Part(score.scored)], level=level) if score.scored else (nan, nan)


@dataclass(frozen=True, slots=True)
class Difference:
    """How much better one prompt is than another, on the examples that are scored for both.

    Attributes:
        mean: mean of the differences, in [-1, 1].
        interval: for the mean of the differences on new examples; it never has the width 0.
        p_value: the probability of a mean at least as far from 0 if no example favoured either prompt, in (0, 1].
        num_better, num_worse, num_examples: examples with a higher score, with a lower score, and all.
    """

    mean: float
    interval: tuple[float, float]
    p_value: float
    num_better: int
    num_worse: int
    num_examples: int


def paired_difference(score: Score, other: Score) -> Difference | None:
    """The difference of two scores of the same examples; ``None`` if no example is scored for both.

    The p-value is that of a sign-flip test. If all differences have the same size, as for right and wrong answers, it
    is exact, and the test is McNemar's. Otherwise it comes from 10,000 random flips, with always the same seed.

    The interval, of the default level, is Bonett and Price's (2012): it adds a difference in each direction, as large
    as the largest one, and uses the normal distribution.

    Args:
        score: of the prompt that is better if the difference is positive.
        other: of the prompt that it is compared with.
    """
    pairs = zip(score.values_E, other.values_E, strict=False)
    differences = [mine - theirs for mine, theirs in pairs if mine is not None and theirs is not None]
    if not differences:
        return None
    largest = max(map(abs, differences)) or 1.0
    n = len(differences) + 2
    centre = sum(differences) / n
    variance = (sum(value**2 for value in differences) + 2 * largest**2) / n - centre**2
    half = NormalDist().inv_cdf((1 + LEVEL) / 2) * sqrt(variance / n)
    return Difference(
        fmean(differences),
        (max(-1.0, centre - half), min(1.0, centre + half)),
        _sign_flip_p_value([value for value in differences if value]),
        sum(value > 0 for value in differences),
        sum(value < 0 for value in differences),
        len(differences),
    )


def _sign_flip_p_value(differences: Sequence[float]) -> float:
    """How often random signs give a sum at least as far from 0; 1 without differences."""
    if not differences:
        return 1.0
    sizes = [abs(value) for value in differences]
    if isclose(min(sizes), max(sizes)):
        # The import takes half a second.
        from scipy.special import bdtr

        num_positive = sum(value > 0 for value in differences)
        rarer = min(num_positive, len(differences) - num_positive)
        return min(1.0, 2 * float(bdtr(rarer, len(differences), 0.5)))
    import numpy as np  # most commands need no p-value

    random, num_extreme = np.random.default_rng(0), 0
    for _ in range(10):  # in parts, for less memory
        positive = random.random((1_000, len(sizes))) < 0.5
        sums = 2 * (positive @ np.array(sizes)) - sum(sizes)
        num_extreme += int((np.abs(sums) >= abs(sum(differences)) - 1e-9).sum())
    return (1 + num_extreme) / 10_001


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a weighted mean.

    Attributes:
        values: in [0, 1], at least one.
        weight: of the mean of the values; the weights of all parts sum to 1.
        stderr: standard error of the mean for another reason than the choice of examples, such as the seeds; ≥ 0.
        degrees: degrees of freedom of ``stderr``, ≥ 1.
    """

    values: Sequence[float]
    weight: float = 1.0
    stderr: float = 0.0
    degrees: int = 1


def interval_of_mean(parts: Sequence[Part], level: float = LEVEL) -> tuple[float, float]:
    """The interval for a weighted mean of means, within [0, 1]; it never has the width 0.

    Graded values vary less than values of 0 and 1 with the same mean, so each counts as more than one example: the
    number of examples is divided by the ratio of the two variances. Student's distribution replaces the normal one
    where a variance is estimated.

    Args:
        parts: at least one.
        level: in (0, 1).
    """
    mean = sum(part.weight * fmean(part.values) for part in parts)
    largest = mean * (1 - mean)
    # Variances of the mean and their degrees of freedom. The unit is the variance of a single value of 0 or 1.
    sampling = [
        (part.weight**2 * _variance_ratio(part.values, largest) / len(part.values), len(part.values) - 1)
        for part in parts
    ]
    other = [(part.weight**2 * part.stderr**2 / largest, part.degrees) for part in parts if part.stderr and largest > 0]
    variance = sum(value for value, _ in (*sampling, *other))
    binary = all(value in (0, 1) for part in parts for value in part.values)
    spread = sum(value**2 / degrees for value, degrees in (*sampling, *other) if degrees)
    if (binary and not other) or not spread:
        return _score_interval(mean, 1 / variance, NormalDist().inv_cdf((1 + level) / 2))
    # The import takes half a second.
    from scipy.special import stdtrit

    # Welch and Satterthwaite's degrees of freedom.
    return _score_interval(mean, 1 / variance, float(stdtrit(variance**2 / spread, (1 + level) / 2)))


def _variance_ratio(values: Sequence[float], largest: float) -> float:
    """The variance of the values as a share of the largest one that values with the same mean can have."""
    if largest <= 0:
        return 1.0
    mean = fmean(values)
    squares = sum((value - mean) ** 2 for value in values)
    return min(1.0, (squares / largest + _PRIOR_VALUES) / (len(values) - 1 + _PRIOR_VALUES))


def _score_interval(mean: float, n: float, quantile: float) -> tuple[float, float]:
    """The means that differ from the observed one by at most so many standard errors, each computed from itself."""
    shrinkage = quantile**2 / n
    centre = (mean + shrinkage / 2) / (1 + shrinkage)
    half = sqrt(shrinkage * (mean * (1 - mean) + shrinkage / 4)) / (1 + shrinkage)
    return max(0.0, centre - half), min(1.0, centre + half)
