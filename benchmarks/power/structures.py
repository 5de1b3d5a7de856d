"""Simulated tasks with different structure: which examples a prompt answers, given how good it is.

How good a prompt is depends on its words (``benchmarks.simulated.landscape``), so the simulated optimizer model can
find better ones. The expected score of a prompt on new examples is known exactly: it is the *true* score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from math import exp
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from benchmarks.simulated.hashing import integer
from benchmarks.simulated.landscape import (
    FREE_WORDS,
    PENALTY_PER_WORD,
    weights,
    words_of,
)
from gpo.data.task import Split
from gpo.evaluation.evaluator import Evaluation
from gpo.models.protocol import Usage
from gpo.prompt import Prompt
from gpo.score import Score

Array = NDArray[np.float64]
NUM_LABELS = 4
_PARTS = 5
"""A graded score is the share of so many parts that are right."""
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Structure:
    """A kind of task.

    Attributes:
        num_val: examples in ``val``.
        shared: share in [0, 1] of the variance of what decides about an answer that is the difficulty of its example,
            the same for every prompt. With 1, a better prompt is right about all that a worse one is; with 0, every
            prompt is right about other examples.
        by_label: each word helps with the examples of one label only.
        graded: scores are 0, 0.2, ... or 1.
        lowest, highest: true scores of the worst and the best prompt that matter.
    """

    num_val: int = 100
    shared: float = 0.7
    by_label: bool = False
    graded: bool = False
    lowest: float = 0.0
    highest: float = 1.0

    def qualities(self, prompt: str, domain: str) -> tuple[float, ...]:
        """The expected score on the examples of each label."""
        if not self.by_label:
            return (self._scaled(_quality(prompt, domain)),) * NUM_LABELS
        return tuple(self._scaled(value) for value in _by_label(prompt, domain))

    def true_score(self, prompt: str, domain: str) -> float:
        """The expected score on new examples."""
        return sum(self.qualities(prompt, domain)) / NUM_LABELS

    def _scaled(self, value: float) -> float:
        return self.lowest + value * (self.highest - self.lowest)


STRUCTURES: Mapping[str, Structure] = {
    "additive": Structure(),
    "by label": Structure(by_label=True),
    "unpaired": Structure(shared=0.0),
    "graded": Structure(graded=True),
    "30 examples": Structure(num_val=30),
    "slight": Structure(lowest=0.60, highest=0.75),
}


GAIN = 12.0
START = -1.7


def _score_of(effect: float, excess: int) -> float:
    logit = START + GAIN * (effect - PENALTY_PER_WORD * excess)
    return 1 / (1 + exp(-logit))


@lru_cache(maxsize=65536)
def _quality(prompt: str, domain: str) -> float:
    effects = weights(domain)
    effect = sum(effects[word] for word in sorted(words_of(prompt) & effects.keys()))
    return _score_of(effect, max(0, len(prompt.split()) - FREE_WORDS))


@lru_cache(maxsize=65536)
def _by_label(prompt: str, domain: str) -> tuple[float, ...]:
    effects = weights(domain)
    present = sorted(words_of(prompt) & effects.keys())
    gains = [0.0] * NUM_LABELS
    for word in present:
        gains[_label_of(word, domain)] += NUM_LABELS * effects[word]
    return tuple(_score_of(gain, max(0, len(prompt.split()) - FREE_WORDS)) for gain in gains)


@lru_cache(maxsize=4096)
def _label_of(word: str, domain: str) -> int:
    ordered = sorted(weights(domain), key=lambda other: (-weights(domain)[other], other))
    return ordered.index(word) % NUM_LABELS


@dataclass
class StructuredEvaluator:
    """An evaluator in this process. ``calls`` counts the answered examples."""

    structure: Structure
    domain: str
    seed: int
    calls: int = 0

    @cached_property
    def difficulties(self) -> Array:
        """A standard normal number for each ``val`` example and part."""
        draw = np.random.default_rng(integer(self.seed, "difficulty"))
        return draw.standard_normal((self.structure.num_val, 1))

    @property
    def labels(self) -> Sequence[int]:
        """The label of each ``val`` example."""
        return [index % NUM_LABELS for index in range(self.structure.num_val)]

    @cache  # noqa: B019  # lives as long as a search
    def answers(self, prompt: str) -> tuple[float, ...]:
        """The scores of a prompt on all of ``val``."""
        qualities = self.structure.qualities(prompt, self.domain)
        draw = np.random.default_rng(integer(self.seed, "answers", prompt))
        parts = _PARTS if self.structure.graded else 1
        own = draw.standard_normal((self.structure.num_val, parts))
        shared = self.structure.shared
        drawn = np.sqrt(shared) * self.difficulties + np.sqrt(1 - shared) * own
        bounds = np.array([_NORMAL.inv_cdf(min(1 - 1e-9, max(1e-9, qualities[label]))) for label in self.labels])
        return tuple(float(value) for value in (drawn < bounds[:, None]).mean(axis=1))

    async def evaluate(
        self, prompts: Sequence[Prompt], split: Split, indices: Sequence[int] | None = None
    ) -> Sequence[Evaluation]:
        chosen = range(self.structure.num_val) if indices is None else indices
        self.calls += len(prompts) * len(chosen)
        evaluations = []
        for prompt in prompts:
            values = self.answers(prompt.text)
            score = Score(tuple(values[index] for index in chosen))
            evaluations.append(Evaluation(score, Usage(requests=len(chosen))))
        return evaluations

    def __hash__(self) -> int:
        return id(self)
