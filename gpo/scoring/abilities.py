"""A response model: how able each prompt is and how difficult each example, from answers to different examples.

Item response theory (the one-parameter logistic model of Rasch, 1960), as in tinyBenchmarks (arXiv 2402.14992). The
logit of a prompt's expected score on an example is the ability of the prompt minus the difficulty of the example.
Scores between 0 and 1 are fitted by quasi-likelihood, with a dispersion that is estimated from the residuals.

Prompts descend from each other: the ability of a prompt is expected near that of its parent. The variances of
differences between parent and child, and of the difficulties, are estimated by expectation maximization on the Laplace
approximation. If all examples are equally difficult, the estimated variance of difficulties is small, and the model
becomes a shrunken mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

_ROOT_VARIANCE = 9.0
"""Prior variance of the first prompt's ability, in squared logits: most scores between 0.003 and 0.997."""
_PRIOR_WEIGHT = 2.0
"""Each estimated variance counts so many differences of the size that is assumed first."""
_LEAST_VARIANCE = 0.01
_LEAST_DISPERSION = 0.02
_MOST_LOGIT = 12.0
_ROUNDS = 5
"""Rounds of expectation maximization, with few steps of Newton's method each; the last fit has more steps."""
_STEPS_IN_ROUND, _STEPS = 3, 12
_TOLERANCE = 1e-2
_LONGEST_STEP = 3.0
"""In logits."""


@dataclass(frozen=True, slots=True)
class Variances:
    """The variances of the prior, in squared logits, and the dispersion of the scores.

    Attributes:
        difficulty: of the examples' difficulties.
        change: of the difference in ability between parent and child.
        dispersion: variance of a score divided by that of a binary score with the same mean, in (0, 1].
    """

    difficulty: float = 1.0
    change: float = 0.5
    dispersion: float = 1.0


@dataclass(frozen=True, slots=True)
class Answers:
    """What was answered.

    Attributes:
        values_PE: score of prompt P on example E in [0, 1]; NaN where it is unknown.
        parents_P: index of the prompt that each was made from; the first is -1, and each parent precedes its children.
    """

    values_PE: Array
    parents_P: Indices


@dataclass(frozen=True, slots=True)
class Abilities:
    """The fitted model.

    The posterior precision of the difficulties, without the abilities, is diagonal. Only the covariance of the
    abilities is therefore kept as a matrix, and a large ``val`` costs time in proportion to its size.

    Attributes:
        abilities_P: ability of each prompt, in logits.
        difficulties_E: difficulty of each example, in logits.
        covariance_PP: posterior covariance of the abilities.
        precision_E: posterior precision of each difficulty if the abilities were known.
        slopes_PE: change of the expected difficulties with the abilities.
    """

    answers: Answers
    variances: Variances
    abilities_P: Array
    difficulties_E: Array
    covariance_PP: Array = field(repr=False)
    precision_E: Array = field(repr=False)
    slopes_PE: Array = field(repr=False)

    @property
    def expected(self) -> Array:
        """Expected score of each prompt on each example, without the luck of known answers; shape (P, E)."""
        return _sigmoid(self.abilities_P[:, None] - self.difficulties_E[None, :])

    def means(self, rows: Sequence[int]) -> tuple[Array, Array]:
        """Mean score over all examples for each of these prompts, and its standard error.

        A known answer counts as it is, an unknown one as expected. The error therefore vanishes once all are known.
        """
        values_RE, expected_RE = self.answers.values_PE[rows], self.expected[rows]
        known_RE, size = ~np.isnan(values_RE), values_RE.shape[1]
        means_R = np.where(known_RE, values_RE, expected_RE).sum(axis=1) / size
        variances_RE = np.where(known_RE, 0.0, expected_RE * (1 - expected_RE))
        noise_R = variances_RE.sum(axis=1) * self.variances.dispersion / size**2
        return means_R, np.sqrt(self._variance_of_sums(rows, variances_RE / size) + noise_R)

    def on_new_examples(self, row: int) -> tuple[float, float]:
        """Expected score of a prompt on more examples like these, and its standard error.

        The luck of a prompt that was chosen for its high score is left out, since its ability is estimated together
        with those of all other prompts.
        """
        expected_E = self.expected[row]
        size = len(expected_E)
        parameters = self._variance_of_sums([row], (expected_E * (1 - expected_E) / size)[None, :])[0]
        return float(expected_E.mean()), float(np.sqrt(parameters + expected_E.var() / size))

    def _variance_of_sums(self, rows: Sequence[int], slopes_RE: Array) -> Array:
        """Variance of a sum of expected scores that changes so much with each logit, from the parameters' error."""
        weights_RP = -slopes_RE @ self.slopes_PE.T
        weights_RP[np.arange(len(rows)), rows] += slopes_RE.sum(axis=1)
        of_abilities_R = np.einsum("rp,pq,rq->r", weights_RP, self.covariance_PP, weights_RP, optimize=True)
        variances_R: Array = of_abilities_R + (slopes_RE**2 / self.precision_E).sum(axis=1)
        return np.maximum(variances_R, 0.0)

    def information(self, row: int) -> Array:
        """How much the answer to each example would tell about a prompt, in inverse squared logits; shape (E,).

        An answer is the less informative, the less is known about the difficulty of its example.
        """
        expected_E = self.expected[row]
        weight_E = np.maximum(expected_E * (1 - expected_E) / self.variances.dispersion, 1e-9)
        informative_E: Array = 1.0 / (1.0 / weight_E + self.variance_of_difficulties)
        return informative_E

    @property
    def variance_of_difficulties(self) -> Array:
        """Posterior variance of each difficulty; shape (E,)."""
        spread_E: Array = ((self.covariance_PP @ self.slopes_PE) * self.slopes_PE).sum(axis=0)
        return 1.0 / self.precision_E + spread_E


def fit(answers: Answers, variances: Variances | None = None) -> Abilities:
    """Fit abilities and difficulties; the variances too, unless they are given."""
    known = answers.values_PE[~np.isnan(answers.values_PE)]
    share = (known.sum() + 1) / (len(known) + 2)
    level = float(np.log(share / (1 - share)))
    abilities_P, difficulties_E = np.full(len(answers.parents_P), level), np.zeros(answers.values_PE.shape[1])
    if variances is None:
        variances = Variances()
        for _ in range(_ROUNDS):
            fitted = _posterior(answers, variances, level, abilities_P, difficulties_E, _STEPS_IN_ROUND)
            abilities_P, difficulties_E = fitted.abilities_P, fitted.difficulties_E
            variances = _improved(fitted)
    return _posterior(answers, variances, level, abilities_P, difficulties_E, _STEPS)


def _posterior(
    answers: Answers, variances: Variances, level: float, abilities_P: Array, difficulties_E: Array, most_steps: int
) -> Abilities:
    """Newton's method for the mode, starting from these parameters, and the inverse Hessian there.

    Args:
        level: prior mean of the first prompt's ability.
    """
    known_PE = ~np.isnan(answers.values_PE)
    values_PE = np.where(known_PE, answers.values_PE, 0.0)
    prior_PP = _precision_of_abilities(answers.parents_P, variances.change)
    hessian_PP, precision_E, slopes_PE = prior_PP, difficulties_E, values_PE
    for _ in range(most_steps):
        logits_PE = np.clip(abilities_P[:, None] - difficulties_E[None, :], -_MOST_LOGIT, _MOST_LOGIT)
        expected_PE = _sigmoid(logits_PE)
        residual_PE = np.where(known_PE, values_PE - expected_PE, 0.0) / variances.dispersion
        weight_PE = np.where(known_PE, expected_PE * (1 - expected_PE), 0.0) / variances.dispersion
        gradient_P = residual_PE.sum(axis=1) - prior_PP @ (abilities_P - level)
        gradient_E = -residual_PE.sum(axis=0) - difficulties_E / variances.difficulty
        # The difficulties are eliminated, since their part of the Hessian is diagonal.
        precision_E = weight_PE.sum(axis=0) + 1.0 / variances.difficulty
        slopes_PE = weight_PE / precision_E
        hessian_PP = prior_PP + np.diag(weight_PE.sum(axis=1)) - slopes_PE @ weight_PE.T
        step_P = np.linalg.solve(hessian_PP, gradient_P + slopes_PE @ gradient_E)
        step_E = gradient_E / precision_E + step_P @ slopes_PE
        largest = float(max(np.abs(step_P).max(), np.abs(step_E).max()))
        share = min(1.0, _LONGEST_STEP / max(largest, _TOLERANCE))
        abilities_P, difficulties_E = abilities_P + share * step_P, difficulties_E + share * step_E
        if largest < _TOLERANCE:
            break
    covariance_PP = np.asarray(np.linalg.inv(hessian_PP), dtype=np.float64)
    return Abilities(answers, variances, abilities_P, difficulties_E, covariance_PP, precision_E, slopes_PE)


def _precision_of_abilities(parents_P: Indices, change: float) -> Array:
    """The prior precision of the abilities: a random walk along the descent."""
    precision_PP = np.zeros((len(parents_P), len(parents_P)))
    children = np.flatnonzero(parents_P >= 0)
    parents = parents_P[children]
    for rows, columns, sign in (
        (children, children, 1),
        (parents, parents, 1),
        (children, parents, -1),
        (parents, children, -1),
    ):
        np.add.at(precision_PP, (rows, columns), sign / change)
    roots = np.flatnonzero(parents_P < 0)
    precision_PP[roots, roots] += 1.0 / _ROOT_VARIANCE
    return precision_PP


def _improved(fitted: Abilities) -> Variances:
    """The variances that the fitted parameters suggest."""
    answers, covariance_PP, start = fitted.answers, fitted.covariance_PP, Variances()
    asked_E = (~np.isnan(answers.values_PE)).any(axis=0)
    squares_E = fitted.difficulties_E**2 + fitted.variance_of_difficulties
    children = np.flatnonzero(answers.parents_P >= 0)
    parents = answers.parents_P[children]
    changes = (fitted.abilities_P[children] - fitted.abilities_P[parents]) ** 2
    changes += covariance_PP[children, children] + covariance_PP[parents, parents]
    changes -= 2 * covariance_PP[children, parents]
    return Variances(
        _mean_square(squares_E[asked_E], start.difficulty), _mean_square(changes, start.change), _dispersion(fitted)
    )


def _mean_square(squares: Array, before: float) -> float:
    mean = (float(squares.sum()) + _PRIOR_WEIGHT * before) / (len(squares) + _PRIOR_WEIGHT)
    return max(_LEAST_VARIANCE, mean)


def _dispersion(fitted: Abilities) -> float:
    known_PE = ~np.isnan(fitted.answers.values_PE)
    values = fitted.answers.values_PE[known_PE]
    if not len(values) or np.isin(values, (0.0, 1.0)).all():
        return 1.0
    expected = fitted.expected[known_PE]
    ratio = float(((values - expected) ** 2).sum() / (expected * (1 - expected)).sum())
    return min(1.0, max(_LEAST_DISPERSION, ratio))


def _sigmoid(logits: Array) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)), dtype=np.float64)
