"""The simulated optimizer model: rewrites prompts, reflects on failures, and keeps the notes of a search.

It reacts to what it is shown, and only to that: ``rewriting``, ``reflecting`` and ``note_taking`` say how, and what
they assume of real models. None of these assumptions is measured. They make every part of a meta-prompt matter; they
do not tell which method is best with a real model.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from benchmarks.simulated.assignment import Assignment, read_assignment
from benchmarks.simulated.hashing import integer
from benchmarks.simulated.note_taking import Notes, read_notes, summary
from benchmarks.simulated.reflecting import Examination, read_examination, reflection
from benchmarks.simulated.rewriting import rewritten
from gpo.models.protocol import Message

Request = Assignment | Examination | Notes


def read_request(messages: Sequence[Message]) -> Request | None:
    """What a conversation asks an optimizer model for; ``None`` where it is a task model that is asked."""
    content = next((turn["content"] for turn in reversed(messages) if turn["role"] == "user"), "")
    return read_assignment(messages) or read_examination(content) or read_notes(content)


def reply(
    messages: Sequence[Message],
    request: Request,
    *,
    seed: int,
    sample: object,
    temperature: float,
    malformed_rate: float = 0.0,
) -> str:
    """A new prompt between tags, or, at the given rate, a reply that holds no prompt; a text, if a text is asked for.

    Args:
        sample: what tells samples of one conversation apart, as text; without effect at temperature 0.
    """
    turns = [f"{turn['role']}: {turn['content']}" for turn in messages]
    draw = Random(integer(seed, "optimizer", sample if temperature > 0 else None, *turns))
    match request:
        case Assignment():
            return _new_prompt(request, draw, malformed_rate)
        case Examination():
            return reflection(request, draw)
        case Notes():
            return summary(request)


def _new_prompt(assignment: Assignment, draw: Random, malformed_rate: float) -> str:
    # Drawn in any case, so that the rate changes no other reply.
    fate, kind = draw.random(), draw.random()
    if fate < malformed_rate:
        return "" if kind < 0.5 else "I have thought about this prompt.\n\nIt seems fine to me as it stands."
    return f"<START>{rewritten(assignment, draw)}<END>"
