"""How the simulated optimizer model keeps the notes of a search.

It notes the words that the scores of the last step and the reflection speak for or against most. What stood in the old
notes counts less the further down it stood, so that words which nothing confirms make way for newer ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.simulated.advice import Advice, read_advice
from benchmarks.simulated.promise import ADVISED, promise
from benchmarks.simulated.sections import (
    BEFORE,
    NOTES,
    REFLECTION_BEFORE,
    TO_NOTE,
    TRIED,
    scored_prompts,
    sections,
)

MAX_TO_SAY, MAX_TO_AVOID = 6, 4
LEAST_PROMISE = 1.0
"""Percentage points; what speaks for a word by less is not worth a note."""


@dataclass(frozen=True, slots=True)
class Notes:
    """What a request for a summary shows: the notes so far, a reflection, and prompts with their scores."""

    old: Advice
    reflection: Advice
    scored: tuple[tuple[str, float], ...]


def read_notes(request: str) -> Notes | None:
    """What a text asks to sum up; ``None`` where it does not ask for a summary."""
    shown = sections(request)
    if BEFORE not in shown or TO_NOTE not in shown:
        return None
    return Notes(
        old=read_advice(shown.get(NOTES, "")),
        reflection=read_advice(shown.get(REFLECTION_BEFORE, "")),
        scored=scored_prompts(shown[BEFORE], shown.get(TRIED, "")),
    )


def summary(notes: Notes) -> str:
    """The new notes in two or three sentences."""
    evidence = dict(promise(notes.scored, notes.reflection))
    for words, most, sign in ((notes.old.say, MAX_TO_SAY, 1), (notes.old.avoid, MAX_TO_AVOID, -1)):
        for rank, word in enumerate(words[:most]):
            evidence[word] = evidence.get(word, 0.0) + sign * ADVISED * (1 - rank / most)
    by_promise = sorted(evidence, key=lambda word: (-evidence[word], word))
    advice = Advice(
        say=_worth_noting(by_promise, [evidence[word] for word in by_promise], MAX_TO_SAY),
        avoid=_worth_noting(by_promise[::-1], [-evidence[word] for word in by_promise[::-1]], MAX_TO_AVOID),
    )
    learnt = advice.worded() if advice != Advice() else "Which of them help cannot be told yet."
    return f"A prompt for this task is a matter of its words. {learnt}"


def _worth_noting(words: Sequence[str], promised: Sequence[float], most: int) -> tuple[str, ...]:
    return tuple(word for word, gain in zip(words[:most], promised, strict=False) if gain >= LEAST_PROMISE)
