"""Update direction: why the current prompt fails on train examples.

In the paper's "prompt + score + reflection", the counterpart of a gradient, the optimizer model describes what is wrong
with the prompt before it writes a better one. With feedback, it sees the failures and their reasons instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from gpo.data.example import Example
from gpo.data.task import Split
from gpo.errors import ModelRefused
from gpo.evaluation.evaluator import Answerer
from gpo.models.protocol import ChatModel, Message, Sampling, given_up
from gpo.strategies.sections import SCALE, failure_lines, joined, scored_lines, titled
from gpo.text import without_controls
from gpo.trajectory import Candidate, Failure, Spending

_MAX_CHARACTERS = 10_000
"""A longer reflection is cut here. The request asks for five sentences, and the text enters every later meta-prompt."""


@dataclass(frozen=True, slots=True)
class Reflection:
    """What was found out about the search, and its cost.

    Attributes:
        text: what the optimizer model wrote; ``None`` if it wrote nothing.
        failures: wrong answers with the current prompt, the worst first.
    """

    text: str | None = None
    spending: Spending = field(default_factory=Spending)
    failures: tuple[Failure, ...] = ()


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
    """Finds out what is wrong with the current prompt."""

    async def reflect(self, current: Candidate, batch: Sequence[int], *, seed: int) -> Reflection:
        """Look for failures in a batch of train examples.

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
class Feedback:
    """Lets the task model answer the batch, and keeps the worst answers with their reasons. It writes no text.

    Costs one answer per example of the batch.

    Args:
        examples: the train split.
        num_failures: the most failures to keep; the worst first. Of equal ones, those with a reason of their own come
            first, and otherwise those that are earlier in the batch.
    """

    answerer: Answerer
    examples: Sequence[Example]
    num_failures: int = 3

    async def reflect(self, current: Candidate, batch: Sequence[int], *, seed: int) -> Reflection:
        answers = await self.answerer.answer(current.prompt, Split.TRAIN, batch)
        spending = sum((answer.spending for answer in answers), start=Spending())
        earlier = Counter[tuple[float, str]]()
        wrong = []
        for index, answer in zip(batch, answers, strict=True):
            if answer.value is not None and answer.value < 1:
                alike = answer.value, answer.reason
                wrong.append((answer.value, earlier[alike], index, answer))
                earlier[alike] += 1
        worst = sorted(wrong, key=lambda failure: failure[:2])[: self.num_failures]
        failures = tuple(
            Failure.abridged(self.examples[index].input, self.examples[index].target, answer.text, answer.reason)
            for _, _, index, answer in worst
        )
        return Reflection(None, spending, failures)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureReflector:
    """Shows the worst answers with the current prompt to the optimizer model, which writes a text about them.

    Costs one answer per example of the batch, and one call of the optimizer model if any answer is not fully right.

    Args:
        examples, num_failures: as in ``Feedback``.
    """

    model: ChatModel
    sampling: Sampling
    answerer: Answerer
    examples: Sequence[Example]
    num_failures: int = 3

    async def reflect(self, current: Candidate, batch: Sequence[int], *, seed: int) -> Reflection:
        feedback = Feedback(answerer=self.answerer, examples=self.examples, num_failures=self.num_failures)
        found = await feedback.reflect(current, batch, seed=seed)
        if not found.failures:
            return found
        reflection = await write_reflection(self.model, self.sampling, seed, _request(current, found.failures))
        return replace(found, text=reflection.text, spending=found.spending + reflection.spending)


def _request(current: Candidate, failures: Sequence[Failure]) -> str:
    return joined(
        "You examine prompts. A language model receives a prompt together with one input at a time and has to answer "
        f"correctly. {SCALE}",
        titled("Examined prompt", scored_lines(current)),
        titled("Inputs that it failed on", "\n\n".join(map(failure_lines, failures))),
        titled(
            "What to reflect on",
            "Say in at most five sentences why this prompt leads to such answers, and what a better prompt would "
            "say, leave out or say otherwise. Speak of what the failures have in common rather than of a single "
            "input, and do not write the better prompt itself.",
        ),
    )
