"""The simulated optimizer model: writes new prompts, reflections and summaries.

It uses only what the request shows. This module and ``rewriting`` state what they assume about real models; none of
these assumptions is measured. They make every part of a meta-prompt matter, but do not show which method works best
with a real model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from benchmarks.simulated.hashing import integer
from benchmarks.simulated.landscape import VOCABULARY, weights, words_of
from benchmarks.simulated.optimizer_requests import (
    Advice,
    Assignment,
    OptimizerRequest,
    ReflectionRequest,
    SummaryRequest,
    read_advice,
)
from benchmarks.simulated.rewriting import GAIN_OF_ADVICE, expected_gains, rewritten
from gpo.models.protocol import Message

RELIABILITY = 2 / 3
"""The probability that a reflection names a word for the right reason."""
MAX_WORDS = 2
"""Words in a reflection, at most."""
MAX_TO_SAY, MAX_TO_AVOID = 6, 4
"""Words in a summary, at most."""
LEAST_GAIN = 1.0
"""In percentage points; a summary leaves out words with a smaller expected gain."""


def reply(
    messages: Sequence[Message],
    request: OptimizerRequest,
    *,
    seed: int,
    sample: object,
    temperature: float,
    malformed_rate: float = 0.0,
) -> str:
    """A new prompt between tags (or, at the given rate, a reply without a prompt), a reflection or a summary.

    Args:
        sample: distinguishes samples of one conversation, by its ``str``; has no effect at temperature 0.
    """
    turns = [f"{turn['role']}: {turn['content']}" for turn in messages]
    draw = Random(integer(seed, "optimizer", sample if temperature > 0 else None, *turns))
    match request:
        case Assignment():
            return _new_prompt(request, draw, malformed_rate)
        case ReflectionRequest():
            return reflection(request, draw)
        case SummaryRequest():
            return summary(request)


def _new_prompt(assignment: Assignment, draw: Random, malformed_rate: float) -> str:
    # Drawn even if unused, so that the rate changes no other reply.
    fate, kind = draw.random(), draw.random()
    if assignment.failures is not None:
        assignment = replace(assignment, advice=read_advice(reflection(assignment.failures, draw)))
    if fate < malformed_rate:
        return "" if kind < 0.5 else "I have thought about this prompt.\n\nIt seems fine to me as it stands."
    return f"<START>{rewritten(assignment, draw)}<END>"


def reflection(request: ReflectionRequest, draw: Random) -> str:
    """Two or three sentences; empty if no failure is shown.

    The failures show the domain. For each of the first two failures, the model names a word that the prompt lacks and
    that would help, or a word of the prompt that hurts. In one case of three it errs and names any word that it knows.
    """
    words = words_of(request.prompt)
    effects = weights(request.domain) if request.domain else {}
    right = [word for word, effect in effects.items() if (effect < 0 if word in words else effect > 0)]
    named = dict.fromkeys(
        draw.choice(right) if right and draw.random() < RELIABILITY else draw.choice(VOCABULARY)
        for _ in range(min(MAX_WORDS, request.num_failures))
    )
    advice = Advice(
        say=tuple(word for word in named if word not in words), avoid=tuple(word for word in named if word in words)
    )
    return f"These answers come of what the prompt says or leaves out. {advice.worded()}" if named else ""


def summary(request: SummaryRequest) -> str:
    """The new notes in two or three sentences.

    They name the words for which the scores of the last step and the reflection give the strongest evidence. A word
    from the old notes counts less the further down it was, so newer words replace it unless evidence confirms it.
    """
    gains = dict(expected_gains(request.scored, request.reflection))
    for words, most, sign in ((request.old.say, MAX_TO_SAY, 1), (request.old.avoid, MAX_TO_AVOID, -1)):
        for rank, word in enumerate(words[:most]):
            gains[word] = gains.get(word, 0.0) + sign * GAIN_OF_ADVICE * (1 - rank / most)
    by_gain = sorted(gains, key=lambda word: (-gains[word], word))
    advice = Advice(
        say=tuple(word for word in by_gain[:MAX_TO_SAY] if gains[word] >= LEAST_GAIN),
        avoid=tuple(word for word in by_gain[::-1][:MAX_TO_AVOID] if -gains[word] >= LEAST_GAIN),
    )
    learnt = advice.worded() if advice != Advice() else "Which of them help cannot be told yet."
    return f"A prompt for this task is a matter of its words. {learnt}"
