"""Simulated tasks with different structure: which examples a prompt answers, given how good it is.

How good a prompt is depends on its words (``benchmarks.simulated.landscape``), so the simulated optimizer model can
find better ones. The expected score of a prompt on new examples is known exactly: it is the *true score*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from math import exp
from statistics import NormalDist, fmean

import numpy as np
from numpy.typing import NDArray

from benchmarks.simulated.domains import DOMAINS
from benchmarks.simulated.hashing import integer
from benchmarks.simulated.landscape import FREE_WORDS, PENALTY_PER_WORD, weights, words_of

NUM_LABELS = 4
NUM_PARTS = 5
"""A graded score is the share of so many parts of an answer that are right."""
GAIN, START = 12.0, -1.7
"""The logit of a prompt's quality is the sum of its words' effects times ``GAIN``, plus ``START``."""
_NORMAL = NormalDist()
_SURE = 1e-9


@dataclass(frozen=True, slots=True)
class Structure:
    """A kind of task.

    Attributes:
        num_val: examples in ``val``; example E has label E mod 4.
        shared: whether an answer is right depends on the example's difficulty, the same for every prompt, and on noise
            of prompt and example. This is the difficulty's share of the variance, in [0, 1]. With 1, a better prompt is
            right about all examples that a worse one is right about. With 0, each prompt is right about other examples.
        by_label: each word helps with the examples of one label only.
        graded: scores are 0, 0.2, ... or 1.
        lowest, highest: expected scores of the worst and of the best prompt.
    """

    num_val: int = 100
    shared: float = 0.7
    by_label: bool = False
    graded: bool = False
    lowest: float = 0.0
    highest: float = 1.0

    @property
    def num_parts(self) -> int:
        """Into how many parts an answer is divided."""
        return NUM_PARTS if self.graded else 1


STRUCTURES: Mapping[str, Structure] = {
    "additive": Structure(),
    "by label": Structure(by_label=True),
    "unpaired": Structure(shared=0.0),
    "graded": Structure(graded=True),
    "30 examples": Structure(num_val=30),
    "slight": Structure(lowest=0.60, highest=0.75),
}
"""Name → structure."""


@dataclass(frozen=True)
class StructuredTask:
    """A task with a structure. The seed decides the domain, the difficulties and the noise."""

    structure: Structure
    seed: int
    _known: dict[str, tuple[float, ...]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def domain(self) -> str:
        """The domain, which says what each word is worth."""
        return list(DOMAINS)[self.seed % len(DOMAINS)]

    def true_score(self, prompt: str) -> float:
        """The expected score of a prompt on new examples."""
        return fmean(self._expected_by_label(prompt))

    def answers(self, prompt: str) -> tuple[float, ...]:
        """The scores of a prompt on all of ``val``."""
        if prompt not in self._known:
            self._known[prompt] = self._drawn(prompt)
        return self._known[prompt]

    def _expected_by_label(self, prompt: str) -> tuple[float, ...]:
        lowest, highest = self.structure.lowest, self.structure.highest
        qualities = _qualities(prompt, self.domain, by_label=self.structure.by_label)
        return tuple(lowest + quality * (highest - lowest) for quality in qualities)

    def _drawn(self, prompt: str) -> tuple[float, ...]:
        num_val, shared = self.structure.num_val, self.structure.shared
        draw = np.random.default_rng(integer(self.seed, "answers", prompt))
        noise_EP = draw.standard_normal((num_val, self.structure.num_parts))
        latent_EP = np.sqrt(shared) * self._difficulties[:, None] + np.sqrt(1 - shared) * noise_EP
        expected = self._expected_by_label(prompt)
        bounds_L = [_NORMAL.inv_cdf(min(1 - _SURE, max(_SURE, value))) for value in expected]
        bounds_E = np.array([bounds_L[index % NUM_LABELS] for index in range(num_val)])
        return tuple((latent_EP < bounds_E[:, None]).mean(axis=1).tolist())

    @cached_property
    def _difficulties(self) -> NDArray[np.float64]:
        return np.random.default_rng(integer(self.seed, "difficulty")).standard_normal(self.structure.num_val)


@lru_cache(maxsize=65536)
def _qualities(prompt: str, domain: str, *, by_label: bool) -> tuple[float, ...]:
    """The quality of a prompt for the examples of each label, in (0, 1)."""
    effects = weights(domain)
    effects_L = [0.0] * NUM_LABELS
    for word in sorted(words_of(prompt) & effects.keys()):
        if by_label:
            effects_L[_labels(domain)[word]] += NUM_LABELS * effects[word]
        else:
            effects_L = [effect + effects[word] for effect in effects_L]
    penalty = PENALTY_PER_WORD * max(0, len(prompt.split()) - FREE_WORDS)
    return tuple(1 / (1 + exp(-START - GAIN * (effect - penalty))) for effect in effects_L)


@cache
def _labels(domain: str) -> Mapping[str, int]:
    """Word → the label that it helps with: the words by their effects, dealt out in turn."""
    effects = weights(domain)
    ordered = sorted(effects, key=lambda word: (-effects[word], word))
    return {word: rank % NUM_LABELS for rank, word in enumerate(ordered)}
