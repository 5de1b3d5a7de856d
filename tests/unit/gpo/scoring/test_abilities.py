from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from gpo.scoring.abilities import Answers, Array, Variances, fit

EXAMPLES = 60


def simulated(
    seed: int, *, spread: float, num_prompts: int = 40, share: float = 0.4, parts: int = 1
) -> tuple[Answers, Array, Array]:
    """Answers with the true abilities and difficulties; each prompt answers a random share of the examples.

    Args:
        spread: standard deviation of the difficulties, in logits.
        parts: a score is the share of so many right parts.
    """
    draw = np.random.default_rng(seed)
    parents = np.array([-1, *[draw.integers(index) for index in range(1, num_prompts)]], dtype=np.intp)
    abilities = np.zeros(num_prompts)
    for index, parent in enumerate(parents[1:], start=1):
        abilities[index] = abilities[parent] + draw.normal(0, 0.7)
    difficulties = draw.normal(0, spread, EXAMPLES)
    chances = 1 / (1 + np.exp(difficulties[None, :] - abilities[:, None]))
    values = draw.binomial(parts, chances) / parts
    values[draw.random(values.shape) > share] = np.nan
    return Answers(values, parents), abilities, difficulties


def test_abilities_and_difficulties_are_recovered() -> None:
    answers, abilities, difficulties = simulated(1, spread=1.5)
    fitted = fit(answers)
    assert np.corrcoef(fitted.abilities_P, abilities)[0, 1] > 0.9
    assert np.corrcoef(fitted.difficulties_E, difficulties)[0, 1] > 0.8
    assert fitted.variances.dispersion == 1
    assert 1.0 < fitted.variances.difficulty < 4.0


def test_different_examples_do_not_make_a_prompt_look_better() -> None:
    """Of two equally able prompts, one answers the easy half and the other the difficult half."""
    draw = np.random.default_rng(3)
    difficulties = np.linspace(-3, 3, EXAMPLES)
    chances = np.repeat(1 / (1 + np.exp(difficulties))[None, :], 22, axis=0)
    values = (draw.random(chances.shape) < chances).astype(np.float64)
    values[0, 30:] = np.nan
    values[1, :30] = np.nan
    parents = np.array([-1, *[0] * 21], dtype=np.intp)
    means, errors = fit(Answers(values, parents)).means([0, 1])
    assert np.nanmean(values[0]) - np.nanmean(values[1]) > 0.5
    assert abs(means[0] - means[1]) < 2 * float(np.hypot(*errors))


@pytest.mark.parametrize(("spread", "parts"), [(1.5, 1), (0.0, 1), (1.0, 5)])
def test_errors_are_as_large_as_stated(spread: float, parts: int) -> None:
    within, total = 0, 0
    bound = NormalDist().inv_cdf(0.95)
    for seed in range(12):
        answers, abilities, difficulties = simulated(seed, spread=spread, parts=parts)
        fitted = fit(answers)
        means, errors = fitted.means(range(len(abilities)))
        chances = 1 / (1 + np.exp(difficulties[None, :] - abilities[:, None]))
        draw = np.random.default_rng(seed + 1000)
        # The unknown answers, drawn now.
        whole = np.where(np.isnan(answers.values_PE), draw.binomial(parts, chances) / parts, answers.values_PE)
        within += int((np.abs(means - whole.mean(axis=1)) < bound * errors).sum())
        total += len(means)
    assert 0.84 < within / total < 0.96


def test_the_error_vanishes_once_every_example_is_answered() -> None:
    answers, _, _ = simulated(4, spread=1.0, share=1.0)
    means, errors = fit(answers).means([0, 5])
    assert means == pytest.approx([np.mean(answers.values_PE[0]), np.mean(answers.values_PE[5])])
    assert errors == pytest.approx([0.0, 0.0])


def test_an_example_that_nearly_every_prompt_gets_right_tells_little() -> None:
    answers, abilities, difficulties = simulated(5, spread=2.0, num_prompts=60, share=0.8)
    information = fit(answers).information(0)
    distance = np.abs(difficulties - abilities[0])
    assert information[distance < 1].mean() > 2 * information[distance > 3].mean()


def test_graded_scores_say_more_than_binary_ones() -> None:
    graded, _, _ = simulated(6, spread=1.0, parts=8)
    binary, _, _ = simulated(6, spread=1.0)
    assert fit(graded).variances.dispersion < 0.3
    assert fit(graded).means([7])[1][0] < fit(binary).means([7])[1][0]


def test_the_covariance_is_that_of_the_full_hessian() -> None:
    answers, _, _ = simulated(9, spread=1.0, num_prompts=6)
    fitted = fit(answers)
    weight = np.where(np.isnan(answers.values_PE), 0.0, fitted.expected * (1 - fitted.expected))
    children = np.arange(1, 6)
    tree = np.zeros((6, 6))
    for child, parent in zip(children, answers.parents_P[1:], strict=True):
        tree[np.ix_([child, parent], [child, parent])] += np.array([[1, -1], [-1, 1]]) / fitted.variances.change
    tree[0, 0] += 1 / 9
    hessian = np.block(
        [
            [tree + np.diag(weight.sum(axis=1)), -weight],
            [-weight.T, np.diag(weight.sum(axis=0) + 1 / fitted.variances.difficulty)],
        ]
    )
    whole = np.linalg.inv(hessian)
    assert fitted.covariance_PP == pytest.approx(whole[:6, :6], rel=0.05, abs=1e-3)
    assert fitted.variance_of_difficulties == pytest.approx(np.diag(whole)[6:], rel=0.05)
    unknown = np.isnan(answers.values_PE[2])
    slopes = np.where(unknown, fitted.expected[2] * (1 - fitted.expected[2]), 0.0) / EXAMPLES
    gradient = np.concatenate([np.eye(6)[2] * slopes.sum(), -slopes])
    noise = (slopes / EXAMPLES).sum()
    assert fitted.means([2])[1][0] == pytest.approx(float(np.sqrt(gradient @ whole @ gradient + noise)), rel=0.05)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_answers_give_a_finite_estimate_with_an_error(value: float) -> None:
    values = np.full((3, EXAMPLES), np.nan)
    values[:, :10] = value
    answers = Answers(values, np.array([-1, 0, 0], dtype=np.intp))
    means, errors = fit(answers).means([0, 1, 2])
    assert np.isfinite(means).all()
    assert (errors > 0).all()
    assert (np.abs(means - value) < 0.3).all()


def test_given_variances_are_kept() -> None:
    answers, _, _ = simulated(8, spread=1.0)
    variances = Variances(difficulty=0.3, change=0.2)
    assert fit(answers, variances).variances == variances
