"""The simulated optimizer model: edits the current prompt, and follows scores where it is shown any."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random

from benchmarks.simulated.hashing import integer
from benchmarks.simulated.landscape import VOCABULARY, words_of
from gpo.models import Message

MAX_EDITS = 6
FOLLOWING = 0.7
"""The probability that an edit follows the shown scores, where they differ."""
NUM_CONSIDERED = 8
"""How many edits such an edit is the most promising of."""

_START, _END = "<START>", "<END>"

# These patterns read the meta-prompts of ``gpo.meta_prompt``, and change with them.
_CURRENT = re.compile(r"## Current prompt\s+Prompt: (.*?)(?:\nScore: (-?[\d.]+)|\n\n## |\Z)", re.DOTALL)
_REWRITE = re.compile(r"Rewrite this instruction:\s*(.+?)\s*(?:\n\s*\n|\Z)", re.DOTALL)
_SCORED = re.compile(r"^Prompt: (.*?)\nScore: (-?[\d.]+)", re.DOTALL | re.MULTILINE)
_STEP_SIZE = re.compile(r"at most (\d+) words?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a meta-prompt asks for.

    Attributes:
        current: the prompt to improve.
        scored: every prompt shown with a score, the current one included where its score is shown.
        step_size: words that may change; ``None`` is no bound.
    """

    current: str
    scored: tuple[tuple[str, float], ...] = ()
    step_size: int | None = None


def read_assignment(messages: Sequence[Message]) -> Assignment | None:
    """What a conversation asks an optimizer model for; ``None`` where it is not a meta-prompt."""
    request = next((turn["content"] for turn in reversed(messages) if turn["role"] == "user"), "")
    found = _CURRENT.search(request) or _last_rewrite(request)
    if found is None:
        return None
    everything = "\n\n".join(turn["content"] for turn in messages)
    bounds = _STEP_SIZE.findall(everything)
    return Assignment(
        current=found[1].strip(),
        scored=tuple((prompt.strip(), float(score)) for prompt, score in _SCORED.findall(everything)),
        # Instructions come last; a prompt shown before them may speak of numbers of words, too.
        step_size=int(bounds[-1]) if bounds else None,
    )


def _last_rewrite(request: str) -> re.Match[str] | None:
    # A compact meta-prompt shows examples of such requests, maybe in one turn: the last one is meant.
    return max(_REWRITE.finditer(request), key=lambda found: found.start(), default=None)


def reply(
    messages: Sequence[Message],
    assignment: Assignment,
    *,
    seed: int,
    sample: object,
    temperature: float,
    malformed_rate: float = 0.0,
) -> str:
    """A new prompt between tags, or, at the given rate, a reply that holds no prompt.

    Args:
        sample: what tells samples of one conversation apart, as text; without effect at temperature 0.
    """
    turns = [f"{turn['role']}: {turn['content']}" for turn in messages]
    draw = Random(integer(seed, "optimizer", sample if temperature > 0 else None, *turns))
    # Drawn in any case, so that the rate changes no other reply.
    fate, kind = draw.random(), draw.random()
    if fate < malformed_rate:
        return "" if kind < 0.5 else "I have thought about this prompt.\n\nIt seems fine to me as it stands."
    return f"{_START}{improved(assignment, draw)}{_END}"


def improved(assignment: Assignment, draw: Random) -> str:
    """The current prompt after one to six word edits, and never more than the step size allows.

    Without scores that differ, every edit is aimless: it inserts, deletes or replaces words of a vocabulary whose mean
    effect on quality is 0. With them, some edits are the most promising of several, where a word promises as much as
    the scores of the prompts with it exceed those of the prompts without it.
    """
    bound = MAX_EDITS if assignment.step_size is None else min(assignment.step_size, MAX_EDITS)
    if bound < 1:
        return assignment.current
    promise = _promise(assignment.scored)
    vocabulary = (*VOCABULARY, *(word for word, gain in promise.items() if gain > 0))
    before = words = assignment.current.split()
    for _ in range(draw.randint(1, bound)):
        choices = NUM_CONSIDERED if promise and draw.random() < FOLLOWING else 1
        options = [_edited(words, vocabulary, draw) for _ in range(choices)]
        words = max(options, key=lambda option: _promised(option, promise))
    return " ".join(words if words != before else [*words, draw.choice(VOCABULARY)])


def _promise(scored: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Word → how far the shown scores speak for it; words of all prompts, or of none, are left out.

    Each pair of prompts spreads its difference in score over the words in which the two differ: the fewer those are,
    the more it tells about each of them.
    """
    promise: dict[str, float] = {}
    bags = [(words_of(prompt), score) for prompt, score in scored]
    for (one, one_score), (other, other_score) in combinations(bags, 2):
        if one != other and one_score != other_score:
            share = (one_score - other_score) / len(one ^ other)
            for word in sorted(one ^ other):
                promise[word] = promise.get(word, 0.0) + (share if word in one else -share)
    return promise


def _promised(words: Sequence[str], promise: Mapping[str, float]) -> float:
    return sum(promise[word] for word in sorted(words_of(" ".join(words)) & promise.keys()))


def _edited(words: Sequence[str], vocabulary: Sequence[str], draw: Random) -> list[str]:
    """The words with one inserted, deleted or replaced; the last one left is never deleted."""
    kind, edited = draw.random(), list(words)
    if not edited or kind < 0.5:
        edited.insert(draw.randint(0, len(edited)), draw.choice(vocabulary))
    elif kind < 0.75 and len(edited) > 1:
        del edited[draw.randrange(len(edited))]
    else:
        edited[draw.randrange(len(edited))] = draw.choice(vocabulary)
    return edited
