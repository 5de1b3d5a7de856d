"""Update direction: a reflection on why the current prompt fails on train examples.

The paper's "prompt + score + reflection", the counterpart of a gradient: the optimizer model describes what is wrong
with the prompt before it writes a better one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gpo.data.example import Example
from gpo.data.task import Split
from gpo.errors import ModelRefused
from gpo.evaluation.evaluator import Answered, Answerer
from gpo.models.protocol import ChatModel, Message, Sampling, given_up
from gpo.strategies.sections import SCALE, example_lines, joined, neutral, scored_lines, titled
from gpo.text import without_controls
from gpo.trajectory import Candidate, Spending

_MAX_CHARACTERS = 10_000
"""A longer reflection is cut here. The request asks for five sentences, and the text enters every later meta-prompt."""


@dataclass(frozen=True, slots=True)
class Reflection:
    """What the optimizer model wrote about the search, and its cost; ``text`` is ``None`` if it wrote nothing."""

    text: str | None = None
    spending: Spending = field(default_factory=Spending)


async def write_reflection(model: ChatModel, sampling: Sampling, seed: int, request: str) -> Reflection:
    """Ask the optimizer model for a reflection or summary of at most 10,000 characters; the rest is cut.

    If the reply is empty or the endpoint refuses this request, ``text`` is ``None`` and the search continues without.

    Raises:
        ModelUnavailable, ModelRefused: the optimizer model could not be called.
    """
    messages: list[Message] = [{"role": "user", "content": request}]
    try:
        reply = await model.complete(messages, sampling.seeded(seed))
    except ModelRefused as refusal:
        if refusal.reason.concerns_every_call:
            raise
        return Reflection(None, Spending(optimizer=given_up(refusal)))
    text = without_controls(reply.answer).strip()[:_MAX_CHARACTERS]
    return Reflection(text or None, Spending(optimizer=reply.usage))


class Reflector(Protocol):
    """Describes what is wrong with the current prompt."""

    async def reflect(self, current: Candidate, batch: Sequence[int], *, seed: int) -> Reflection:
        """Reflect on the failures in a batch of train examples.

        Args:
            batch: indices into the train split.
            seed: fixes all randomness.

        Raises:
            ModelError, EvaluationError: a model could not be called.
        """
        ...


@dataclass(frozen=True, slots=True)
class NoReflection:
    """No reflection and no cost; the direction consists of prompts and scores. GPO's own choice."""

    async def reflect(self, current: Candidate, batch: Sequence[int], *, seed: int) -> Reflection:
        return Reflection()


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureReflector:
    """Lets the task model answer the batch, and shows the worst answers to the optimizer model.

    Costs one answer per example of the batch, and one call of the optimizer model if any answer is not fully right.

    Args:
        examples: the train split.
        num_failures: the most failures to show; the worst first, equal ones in the order of the batch.
    """

    model: ChatModel
    sampling: Sampling
    answerer: Answerer
    examples: Sequence[Example]
    num_failures: int = 3

    async def reflect(self, current: Candidate, batch: Sequence[int], *, seed: int) -> Reflection:
        answers = await self.answerer.answer(current.prompt, Split.TRAIN, batch)
        spending = sum((answer.spending for answer in answers), start=Spending())
        failures = [
            (value, index, answer)
            for index, answer in zip(batch, answers, strict=True)
            if (value := answer.value) is not None and value < 1
        ]
        if not failures:
            return Reflection(None, spending)
        worst = sorted(failures, key=lambda failure: failure[0])[: self.num_failures]
        shown = "\n\n".join(_failure(self.examples[index], answer) for _, index, answer in worst)
        reflection = await write_reflection(self.model, self.sampling, seed, _request(current, shown))
        return Reflection(reflection.text, spending + reflection.spending)


def _failure(example: Example, answer: Answered) -> str:
    return f"{example_lines(example)}\nThe model's answer: {neutral(answer.text)}"


def _request(current: Candidate, failures: str) -> str:
    return joined(
        "You examine prompts. A language model receives a prompt together with one input at a time and has to answer "
        f"correctly. {SCALE}",
        titled("Examined prompt", scored_lines(current)),
        titled("Inputs that it failed on", failures),
        titled(
            "What to reflect on",
            "Say in at most five sentences why this prompt leads to such answers, and what a better prompt would "
            "say, leave out or say otherwise. Speak of what the failures have in common rather than of a single "
            "input, and do not write the better prompt itself.",
        ),
    )
