"""How far the simulated optimizer model believes in a word, from what it is shown.

A word's promise is in percentage points of score: what a prompt would gain by holding it, as far as one can tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import combinations

from benchmarks.simulated.advice import Advice
from benchmarks.simulated.landscape import words_of

ADVISED = 3.0
"""The promise of a word that is recommended in words: what a helpful word adds in a landscape, in the mean."""


@lru_cache(maxsize=4096)
def promise(scored: tuple[tuple[str, float], ...], advice: Advice) -> Mapping[str, float]:
    """Word → its promise by scores and by advice together; words that nothing speaks for or against are left out.

    Each pair of prompts spreads its difference in score over the words in which the two differ: the fewer those are,
    the more it tells about each of them.
    """
    promised: dict[str, float] = {}
    bags = [(words_of(prompt), score) for prompt, score in scored]
    for (one, one_score), (other, other_score) in combinations(bags, 2):
        if one != other and one_score != other_score:
            share = (one_score - other_score) / len(one ^ other)
            for word in sorted(one ^ other):
                promised[word] = promised.get(word, 0.0) + (share if word in one else -share)
    _add(promised, advice.say, ADVISED)
    _add(promised, advice.avoid, -ADVISED)
    return promised


def _add(promised: dict[str, float], words: Sequence[str], gain: float) -> None:
    for word in words:
        promised[word] = promised.get(word, 0.0) + gain
