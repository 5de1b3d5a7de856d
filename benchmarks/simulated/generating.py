"""What the simulated models reply to a chat request."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.simulated import judge_model, optimizer_model, task_model
from benchmarks.simulated.foreign import read_foreign
from benchmarks.simulated.protocol import ChatRequest
from gpo.models.protocol import Message


def generated(request: ChatRequest, seed: int, malformed_rate: float, index: int, repetition: int = 0) -> str:
    """What the model replies that the request is meant for, which its text tells.

    Args:
        index: among the choices.
        repetition: how often the same was asked for before without a seed.
    """
    messages = request.messages
    verdict = judge_model.verdict(messages)
    if verdict is not None:
        return verdict
    asked = optimizer_model.read_request(messages)
    foreign = read_foreign(messages) if asked is None else None
    asked = foreign.assignment if foreign else asked
    if asked is None:
        plain: Sequence[Message] = [{"role": "user", "content": foreign.question}] if foreign else messages
        answer = task_model.answer(plain, seed=seed)
        return foreign.framed(answer) if foreign else answer
    reply = optimizer_model.reply(
        messages,
        asked,
        seed=seed,
        sample=(request.seed, index, repetition) if repetition else (request.seed, index),
        temperature=request.temperature,
        malformed_rate=malformed_rate,
    )
    return foreign.framed(reply.removeprefix("<START>").removesuffix("<END>")) if foreign else reply
