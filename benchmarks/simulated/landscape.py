"""The quality of a prompt for a simulated task: a known landscape that a search can climb.

The quality of a prompt is the probability of a right answer. It depends on the words in the prompt and on their number;
word order, case and punctuation do not matter. The same words matter in every domain, but with different effects.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache, lru_cache

from benchmarks.simulated.hashing import integer

TICKETS = "tickets"
"""The domain whose landscape is defined here; those of the other domains are derived from it."""

BASE = 0.15
FREE_WORDS = 40
PENALTY_PER_WORD = 0.004
LOWEST, HIGHEST = 0.05, 0.97

HELPFUL: Mapping[str, float] = {
    "exactly": 0.065,
    "category": 0.060,
    "classify": 0.055,
    "carefully": 0.050,
    "label": 0.050,
    "word": 0.045,
    "only": 0.045,
    "single": 0.040,
    "read": 0.035,
    "answer": 0.030,
    "best": 0.030,
    "one": 0.025,
    "lowercase": 0.025,
    "topic": 0.025,
    "customer": 0.020,
    "decide": 0.020,
    "reason": 0.020,
    "department": 0.020,
    "billing": 0.015,
    "technical": 0.015,
    "shipping": 0.015,
    "account": 0.015,
    "nothing": 0.015,
    "support": 0.015,
}
"""Word → what it adds to the quality for tickets. All of them together raise it from 0.15 to 0.90."""

HARMFUL: Mapping[str, float] = {
    "poem": 0.100,
    "guess": 0.090,
    "story": 0.080,
    "ignore": 0.080,
    "joke": 0.070,
    "maybe": 0.060,
    "random": 0.060,
    "creative": 0.050,
    "translate": 0.050,
    "quickly": 0.040,
    "elaborate": 0.040,
    "whatever": 0.030,
}
"""Word → what it subtracts from the quality for tickets."""

NEUTRAL: tuple[str, ...] = (
    "please", "then", "also", "given", "text", "message", "below", "above", "kindly", "try", "consider", "think",
    "about", "every", "each", "first", "last", "write", "say", "tell", "choose", "find", "look", "note", "here", "now",
    "team", "request", "case", "sentence", "reply", "short", "user", "task", "input", "result",
)  # fmt: skip
"""Words without any effect, in any domain."""

WEIGHTS: Mapping[str, float] = {**HELPFUL, **{word: -weight for word, weight in HARMFUL.items()}}
"""Word → its effect on the quality for tickets."""

VOCABULARY: tuple[str, ...] = (*HELPFUL, *HARMFUL, *NEUTRAL)
"""Every word that the simulated optimizer model knows. The mean effect is 0, so a random walk leads nowhere."""

_WORD = re.compile(r"[a-z]+")


def word_list(text: str) -> list[str]:
    """The words of a text, in order, in lower case and without punctuation."""
    return _WORD.findall(text.lower())


@lru_cache(maxsize=65536)
def words_of(text: str) -> frozenset[str]:
    """The distinct words of a text, as in ``word_list``."""
    return frozenset(word_list(text))


@cache
def weights(domain: str) -> Mapping[str, float]:
    """Word → its effect on the quality in a domain: the effects for tickets, shuffled among the same words."""
    if domain == TICKETS:
        return WEIGHTS
    shuffled = sorted(WEIGHTS, key=lambda word: integer("landscape", domain, word))
    return dict(zip(shuffled, WEIGHTS.values(), strict=True))


@lru_cache(maxsize=65536)
def quality(prompt: str, domain: str = TICKETS) -> float:
    """The probability of a right answer under a prompt, in [0.05, 0.97]."""
    effects = weights(domain)
    effect = sum(effects[word] for word in sorted(words_of(prompt) & effects.keys()))
    excess = max(0, len(prompt.split()) - FREE_WORDS)
    return min(HIGHEST, max(LOWEST, BASE + effect - PENALTY_PER_WORD * excess))
