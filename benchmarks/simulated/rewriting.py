"""How the simulated optimizer model rewrites a prompt.

What is assumed of such models:

- The more words may change, the more do: up to 30 % of the step size, and up to 20 where no bound is stated. In 5 % of
  replies the model disregards a bound, and adds more words than it allows.
- Without evidence, edits are aimless: words of a vocabulary whose mean effect is 0 come, go or replace others.
- With evidence, 70 % of the edits are the most promising of eight that come to mind. Evidence is differences in score
  (or, in a compact meta-prompt, which prompt became which), and what reflections and notes recommend; the model cannot
  tell right advice from wrong.
- Asked to edit rather than to write anew, it makes half as many changes.
- Asked to paraphrase, it goes by no evidence. It replaces words without effect by others of the kind and changes the
  order, and in 10 % of its edits, it misses the meaning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from random import Random
from typing import NamedTuple

from benchmarks.simulated.assignment import Assignment
from benchmarks.simulated.landscape import NEUTRAL, VOCABULARY, WEIGHTS, word_list
from benchmarks.simulated.promise import promise

EDITED_SHARE = 0.3
MAX_UNBOUNDED_EDITS = 20
OVERSTEPPING = 0.05
FOLLOWING = 0.7
"""The probability that an edit follows the evidence, where there is any."""
NUM_CONSIDERED = 8
"""How many edits such an edit is the most promising of."""
MISUNDERSTANDING = 0.1
"""The probability that an edit of a paraphrase is aimless."""


class _Edit(NamedTuple):
    """Puts ``word`` where ``removed`` words, none or one, stood; ``None`` puts nothing there."""

    place: int
    removed: int
    word: str | None


def rewritten(assignment: Assignment, draw: Random) -> str:
    """The current prompt in other words, at least one of which is changed; as it is for a step size of 0."""
    before, bound = assignment.current.split(), assignment.step_size
    if bound == 0:
        return assignment.current
    if bound is not None and draw.random() < OVERSTEPPING:
        words = _lengthened(before, bound + draw.randint(1, _num_edits(assignment)), draw)
    elif assignment.kind == "paraphrase":
        words = _paraphrased(before, draw.randint(1, _num_edits(assignment)), draw)
    else:
        evidence = promise(assignment.scored, assignment.advice)
        words = _edited(before, draw.randint(1, _num_edits(assignment)), evidence, draw)
    return " ".join(words if words != before else [*words, draw.choice(NEUTRAL)])


def _num_edits(assignment: Assignment) -> int:
    """The most that a rewriting changes."""
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
        options = [_aimless(len(edited), vocabulary, draw) for _ in range(num_options)]
        edit = max(options, key=lambda option: _gain(option, edited, held, evidence))
        lost, won = _exchanged(edit, edited)
        held.subtract(lost)
        held.update(won)
        _apply(edit, edited)
    return edited


def _aimless(num_words: int, vocabulary: Sequence[str], draw: Random) -> _Edit:
    """A word inserted, deleted or replaced; the last one left is never deleted."""
    kind = draw.random()
    if not num_words or kind < 0.5:
        return _Edit(draw.randint(0, num_words), 0, draw.choice(vocabulary))
    return _Edit(draw.randrange(num_words), 1, None if kind < 0.75 and num_words > 1 else draw.choice(vocabulary))


def _gain(edit: _Edit, words: Sequence[str], held: Counter[str], evidence: Mapping[str, float]) -> float:
    """The promise of the words that an edit brings, less that of the words that no longer occur after it."""
    lost, won = _exchanged(edit, words)
    gain = sum(evidence.get(word, 0.0) for word in won if held[word] == 0)
    return gain - sum(evidence.get(word, 0.0) for word in lost if held[word] == 1 and word not in won)


def _exchanged(edit: _Edit, words: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words that an edit takes away, and those that it puts in their place."""
    return _distinct(words[edit.place]) if edit.removed else (), _distinct(edit.word) if edit.word else ()


def _apply(edit: _Edit, words: list[str]) -> None:
    words[edit.place : edit.place + edit.removed] = [edit.word] if edit.word else []


def _paraphrased(words: Sequence[str], num_edits: int, draw: Random) -> list[str]:
    edited, left = list(words), num_edits
    while left > 0:
        replaceable = [index for index, token in enumerate(edited) if not WEIGHTS.keys() & set(_distinct(token))]
        kind = draw.random()
        if kind < MISUNDERSTANDING:
            _apply(_aimless(len(edited), VOCABULARY, draw), edited)
        elif len(edited) > 1 and left > 1 and kind < 0.4:
            # An exchange of neighbours counts as two changed words.
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
    # In their order: that of a set differs from process to process, and with it the rounding of sums.
    return tuple(dict.fromkeys(word_list(token)))
