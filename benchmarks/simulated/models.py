"""The simulated models: one entry for chat requests, the judge, the embedding model, and a model without HTTP."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt

from benchmarks.simulated import optimizer_model, task_model
from benchmarks.simulated.hashing import integer
from benchmarks.simulated.landscape import word_list
from benchmarks.simulated.optimizer_requests import read_request
from benchmarks.simulated.other_optimizers import read_foreign
from benchmarks.simulated.protocol import ChatRequest, cut
from gpo.models.protocol import Completion, Message, Sampling, Usage

DIMENSION = 64
_COORDINATES_PER_WORD = 4

# These patterns match the messages of ``gpo.evaluation.metrics.judge`` and must change with them.
_ANSWER = re.compile(r"<answer>\n(.*)\n</answer>", re.DOTALL)
_REFERENCE = re.compile(r"<reference>\n(.*?)\n</reference>", re.DOTALL)
_SCALE = re.compile(r"whole number from 0 to (\d+):\nVerdict: N\Z")


def generated(request: ChatRequest, seed: int, malformed_rate: float, index: int, repetition: int = 0) -> str:
    """The reply of the model that a request addresses, which its text shows: judge, optimizer or task model.

    Args:
        index: of the choice in the reply.
        repetition: how often the same request without a seed came before.
    """
    messages = request.messages
    verdict = judge_verdict(messages)
    if verdict is not None:
        return verdict
    parsed = read_request(messages)
    foreign = read_foreign(messages) if parsed is None else None
    parsed = foreign.assignment if foreign else parsed
    if parsed is None:
        plain: Sequence[Message] = [{"role": "user", "content": foreign.question}] if foreign else messages
        answer = task_model.answer(plain, seed=seed)
        return foreign.framed(answer) if foreign else answer
    reply = optimizer_model.reply(
        messages,
        parsed,
        seed=seed,
        sample=(request.seed, index, repetition) if repetition else (request.seed, index),
        temperature=request.temperature,
        malformed_rate=malformed_rate,
    )
    return foreign.framed(reply.removeprefix("<START>").removesuffix("<END>")) if foreign else reply


def judge_verdict(messages: Sequence[Message]) -> str | None:
    """A reason and a verdict: the best mark if the answer contains a reference, else 0.

    Case and white space around a reference do not count. ``None`` if the conversation does not ask for a verdict.
    """
    request = messages[-1]["content"]
    scale, answer = _SCALE.search(request), _ANSWER.search(request)
    if scale is None or answer is None:
        return None
    references = [reference.strip().lower() for reference in _REFERENCE.findall(request)]
    if any(reference and reference in answer[1].lower() for reference in references):
        return f"The answer agrees with a reference.\nVerdict: {scale[1]}"
    return "The answer agrees with no reference.\nVerdict: 0"


# A search embeds its whole history in every step.
@lru_cache(maxsize=4096)
def embed(text: str) -> tuple[float, ...]:
    """A bag of hashed words as a unit vector of length 64: the more words two texts share, the higher their cosine.

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
    """The coordinates of a word and their signs; the signs keep the cosine of unrelated texts near 0."""
    # Seven bits for each coordinate: six for its index, one for its sign.
    bits = integer("word", word)
    chunks = [bits >> (7 * index) & 127 for index in range(_COORDINATES_PER_WORD)]
    return tuple((chunk >> 1, 1 if chunk & 1 else -1) for chunk in chunks)


class SimulatedEmbedder:
    """An ``Embedder`` in this process."""

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        return [embed(text) for text in texts]


@dataclass(frozen=True, slots=True)
class SimulatedModel:
    """A ``ChatModel`` in this process that replies as the endpoint does, without HTTP, latency, limits or faults.

    The conversation decides whether it is the task model, the optimizer model or the judge. It has no state.
    """

    seed: int = 0
    malformed_rate: float = 0.0

    async def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        request = ChatRequest(
            model="",
            messages=tuple(messages),
            n=1,
            temperature=1.0 if sampling.temperature is None else sampling.temperature,
            max_tokens=sampling.max_tokens,
            stop=sampling.stop,
            seed=sampling.seed,
        )
        choice = cut(generated(request, self.seed, self.malformed_rate, 0), request)
        # Real models yield to the event loop as well.
        await asyncio.sleep(0)
        truncated = choice.finish_reason == "length"
        usage = Usage(
            requests=1,
            prompt_tokens=request.prompt_tokens,
            completion_tokens=choice.tokens,
            empty=int(not choice.text.strip()),
            truncated=int(truncated),
        )
        return Completion(choice.text, usage, truncated)
