"""The simulated embedding model: bags of hashed words, so that texts are alike as far as they share words."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from math import sqrt

from benchmarks.simulated.hashing import integer
from benchmarks.simulated.landscape import word_list

DIMENSION = 64
_COORDINATES_PER_WORD = 4


# A search embeds its whole history in every step.
@lru_cache(maxsize=4096)
def embed(text: str) -> tuple[float, ...]:
    """A unit vector of length 64; its cosine with another text's vector grows with the words that both share.

    Word order, case and punctuation do not count. A text without words is the first unit vector.
    """
    vector = [0.0] * DIMENSION
    for word, count in Counter(word_list(text)).items():
        for coordinate, sign in _coordinates(word):
            vector[coordinate] += sign * count
    norm = sqrt(sum(value * value for value in vector))
    if norm == 0.0:
        return (1.0, *[0.0] * (DIMENSION - 1))
    return tuple(value / norm for value in vector)


@lru_cache(maxsize=65536)
def _coordinates(word: str) -> tuple[tuple[int, int], ...]:
    """Where a word shows in the vector, and with which sign; signs keep unrelated texts near a cosine of 0."""
    # Each coordinate takes seven bits of its own: six for the place, one for the sign.
    bits = integer("word", word)
    chunks = [bits >> (7 * index) & 127 for index in range(_COORDINATES_PER_WORD)]
    return tuple((chunk >> 1, 1 if chunk & 1 else -1) for chunk in chunks)
