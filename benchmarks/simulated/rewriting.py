"""How the simulated optimizer model rewrites a prompt.

Assumptions about such models:

- The more words may change, the more do: up to 30 % of the step size, and up to 20 words without a bound. In 5 % of
  replies the model ignores a bound and adds more words than it allows.
- Without evidence, edits are random: words of a vocabulary whose mean effect is 0 are inserted, deleted or replaced.
- With evidence, 70 % of the edits are the most promising of eight random ones. Evidence is differences in score (or, in
  a compact meta-prompt, the order of rewritings) and the advice of reflections and summaries; the model cannot tell
  right advice from wrong.
- If the request asks to edit rather than to write a new prompt, the model makes half as many changes.
- If the request shows two prompts to be merged, the model keeps each word that only one of them has with probability
  1/2, and then changes words.
- If the request asks for a paraphrase, the model ignores all evidence. It swaps neighbouring words and replaces words
  that have no effect by others without effect; 10 % of its edits are random and may change the meaning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from random import Random
from typing import NamedTuple

from benchmarks.simulated.landscape import NEUTRAL, VOCABULARY, WEIGHTS, word_list, words_of
from benchmarks.simulated.optimizer_requests import Advice, Assignment, Scored

EDITED_SHARE = 0.3
MAX_UNBOUNDED_EDITS = 20
OVERSTEPPING = 0.05
"""The probability that a rewriting ignores the bound."""
FOLLOWING = 0.7
"""The probability that an edit follows the evidence, if there is any."""
NUM_CONSIDERED = 8
"""The number of random edits from which such an edit is chosen."""
MISUNDERSTANDING = 0.1
"""The probability that an edit of a paraphrase is random."""
GAIN_OF_ADVICE = 3.0
"""The expected gain of a recommended word, in percentage points: the mean effect of a helpful word."""


@lru_cache(maxsize=4096)
def expected_gains(scored: Scored, advice: Advice) -> Mapping[str, float]:
    """Word → the gain in percentage points that scores and advice suggest; words without evidence are left out.

    Each pair of prompts spreads its difference in score over the words in which the two differ: the fewer these are,
    the stronger the evidence about each.
    """
    gains: dict[str, float] = {}
    bags = [(words_of(prompt), score) for prompt, score in scored]
    for (one, one_score), (other, other_score) in combinations(bags, 2):
        if one != other and one_score != other_score:
            share = (one_score - other_score) / len(one ^ other)
            for word in sorted(one ^ other):
                gains[word] = gains.get(word, 0.0) + (share if word in one else -share)
    for words, gain in ((advice.say, GAIN_OF_ADVICE), (advice.avoid, -GAIN_OF_ADVICE)):
        for word in words:
            gains[word] = gains.get(word, 0.0) + gain
    return gains


class _Edit(NamedTuple):
    """Replaces ``removed`` words (0 or 1) at ``start`` by ``word``; ``None`` inserts nothing."""

    start: int
    removed: int
    word: str | None


def rewritten(assignment: Assignment, draw: Random) -> str:
    """The current prompt with at least one word changed; unchanged for a step size of 0, except for merging."""
    before, bound = assignment.current.split(), assignment.step_size
    if assignment.other is not None:
        before = _merged(before, assignment.other.split(), draw)
    if bound == 0:
        return " ".join(before)
    if bound is not None and draw.random() < OVERSTEPPING:
        words = _lengthened(before, bound + draw.randint(1, _num_edits(assignment)), draw)
    elif assignment.kind == "paraphrase":
        words = _paraphrased(before, draw.randint(1, _num_edits(assignment)), draw)
    else:
        evidence = expected_gains(assignment.scored, assignment.advice)
        words = _edited(before, draw.randint(1, _num_edits(assignment)), evidence, draw)
    return " ".join(words if words != before else [*words, draw.choice(NEUTRAL)])


def _merged(words: Sequence[str], others: Sequence[str], draw: Random) -> list[str]:
    """Each word that only one of the prompts has is kept with probability 1/2; a single word at least is kept."""
    merged = [word for word in words if word in others or draw.random() < 0.5]
    for word in others:
        if word not in words and draw.random() < 0.5:
            merged.insert(draw.randint(0, len(merged)), word)
    return merged or list(words[:1])


def _num_edits(assignment: Assignment) -> int:
    """The largest number of edits in a rewriting."""
    bound = assignment.step_size
    most = MAX_UNBOUNDED_EDITS if bound is None else round(EDITED_SHARE * bound)
    return max(1, most // 2 if assignment.kind == "editing" else most)


def _lengthened(words: Sequence[str], num_words: int, draw: Random) -> list[str]:
    longer = list(words)
    for _ in range(num_words):
        longer.insert(draw.randint(0, len(longer)), draw.choice(VOCABULARY))
    return longer


def _edited(words: Sequence[str], num_edits: int, evidence: Mapping[str, float], draw: Random) -> list[str]:
    vocabulary = (*VOCABULARY, *(word for word, gain in evidence.items() if gain > 0))
    edited = list(words)
    held = Counter(word for token in edited for word in _distinct(token))
    for _ in range(num_edits):
        num_options = NUM_CONSIDERED if evidence and draw.random() < FOLLOWING else 1
        options = [_random_edit(len(edited), vocabulary, draw) for _ in range(num_options)]
        edit = max(options, key=lambda option: _gain(option, edited, held, evidence))
        lost, won = _exchanged(edit, edited)
        held.subtract(lost)
        held.update(won)
        _apply(edit, edited)
    return edited


def _random_edit(num_words: int, vocabulary: Sequence[str], draw: Random) -> _Edit:
    """Insert, delete or replace a word; the only word of a prompt is never deleted."""
    kind = draw.random()
    if not num_words or kind < 0.5:
        return _Edit(draw.randint(0, num_words), 0, draw.choice(vocabulary))
    return _Edit(draw.randrange(num_words), 1, None if kind < 0.75 and num_words > 1 else draw.choice(vocabulary))


def _gain(edit: _Edit, words: Sequence[str], held: Counter[str], evidence: Mapping[str, float]) -> float:
    """The expected gain of the words that an edit adds, less that of the words that no longer occur after it."""
    lost, won = _exchanged(edit, words)
    gain = sum(evidence.get(word, 0.0) for word in won if held[word] == 0)
    return gain - sum(evidence.get(word, 0.0) for word in lost if held[word] == 1 and word not in won)


def _exchanged(edit: _Edit, words: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words that an edit removes and the words that it adds."""
    return _distinct(words[edit.start]) if edit.removed else (), _distinct(edit.word) if edit.word else ()


def _apply(edit: _Edit, words: list[str]) -> None:
    words[edit.start : edit.start + edit.removed] = [edit.word] if edit.word else []


def _paraphrased(words: Sequence[str], num_edits: int, draw: Random) -> list[str]:
    edited, left = list(words), num_edits
    while left > 0:
        replaceable = [index for index, token in enumerate(edited) if not WEIGHTS.keys() & set(_distinct(token))]
        kind = draw.random()
        if kind < MISUNDERSTANDING:
            _apply(_random_edit(len(edited), VOCABULARY, draw), edited)
        elif len(edited) > 1 and left > 1 and kind < 0.4:
            # Swapping neighbours counts as two changed words.
            left -= 1
            index = draw.randrange(len(edited) - 1)
            edited[index : index + 2] = reversed(edited[index : index + 2])
        elif replaceable:
            edited[draw.choice(replaceable)] = draw.choice(NEUTRAL)
        else:
            edited.insert(draw.randint(0, len(edited)), draw.choice(NEUTRAL))
        left -= 1
    return edited


@lru_cache(maxsize=65536)
def _distinct(token: str) -> tuple[str, ...]:
    # Ordered, unlike a set: the order of a set differs between processes, and so would the rounding of sums.
    return tuple(dict.fromkeys(word_list(token)))
