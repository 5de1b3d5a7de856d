"""Deterministic fakes of models, evaluators, proposers and embedders, without a network.

Like the real ones, they yield to the event loop in every call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from gpo.data.example import Example
from gpo.data.task import Split
from gpo.evaluation.evaluator import Answered, Evaluation
from gpo.models.protocol import Completion, Message, Sampling, Usage
from gpo.prompt import Prompt
from gpo.score import Score
from gpo.strategies.proposer import OnPrompt, Proposals, ignore_prompt
from gpo.trajectory import Candidate, Direction, Spending

Reply = str | Completion | Exception
"""What a fake model does with one call; an exception is raised."""


@dataclass
class FakeModel:
    """A chat model that takes its replies from a function.

    A text reply counts as one request; its tokens are words.

    Attributes:
        reply: called with the conversation and the sampling settings.
        calls: conversation and settings of every call, in order.
    """

    reply: Callable[[Sequence[Message], Sampling], Reply]
    calls: list[tuple[tuple[Message, ...], Sampling]] = field(
        default_factory=list[tuple[tuple[Message, ...], Sampling]]
    )

    @classmethod
    def scripted(cls, replies: Iterable[Reply]) -> FakeModel:
        """A model that returns these replies in order and fails after the last one."""
        script = iter(replies)

        def next_reply(_messages: Sequence[Message], _sampling: Sampling) -> Reply:
            try:
                return next(script)
            except StopIteration:
                raise AssertionError("the script has no more replies") from None

        return cls(next_reply)

    async def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        """Reply with ``reply``; see ``gpo.models.protocol.ChatModel``."""
        self.calls.append((tuple(messages), sampling))
        reply = self.reply(messages, sampling)
        await asyncio.sleep(0)
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, Completion):
            return reply
        num_words = sum(len(message["content"].split()) for message in messages)
        return Completion(reply, Usage(requests=1, prompt_tokens=num_words, completion_tokens=len(reply.split())))


def _numbered_answer(prompt: Prompt, index: int) -> str:
    return f"answer {index} to: {prompt.text}"


@dataclass
class FakeEvaluator:
    """An evaluator that takes its verdicts from a function: one value and one request per example.

    Attributes:
        values: called with each prompt.
        texts: called with a prompt and the index of an example; the answer is empty if its value is ``None``.
        calls: the prompts and the split of every call to ``evaluate``, in order.
        answered: the prompt, the split and the indices of every call to ``answer``, in order.
    """

    values: Callable[[Prompt], Sequence[float | None]]
    texts: Callable[[Prompt, int], str] = _numbered_answer
    calls: list[tuple[tuple[Prompt, ...], Split]] = field(default_factory=list[tuple[tuple[Prompt, ...], Split]])
    answered: list[tuple[Prompt, Split, tuple[int, ...]]] = field(
        default_factory=list[tuple[Prompt, Split, tuple[int, ...]]]
    )

    async def evaluate(
        self, prompts: Sequence[Prompt], split: Split, indices: Sequence[int] | None = None
    ) -> Sequence[Evaluation]:
        """Evaluate with ``values``; see ``gpo.evaluation.evaluator.Evaluator``."""
        self.calls.append((tuple(prompts), split))
        await asyncio.sleep(0)
        rows = [self.values(prompt) for prompt in prompts]
        scores = [Score(tuple(row if indices is None else (row[index] for index in indices))) for row in rows]
        return [Evaluation(score, Usage(requests=score.num_examples)) for score in scores]

    async def answer(self, prompt: Prompt, split: Split, indices: Sequence[int]) -> Sequence[Answered]:
        """Answer with ``texts`` and ``values``; see ``gpo.evaluation.evaluator.Answerer``."""
        self.answered.append((prompt, split, tuple(indices)))
        await asyncio.sleep(0)
        values = self.values(prompt)
        for index in indices:
            if not 0 <= index < len(values):
                raise ValueError(f"there is no {split} example {index}; there are {len(values)}")
        return [self._answered(prompt, index, values[index]) for index in indices]

    def _answered(self, prompt: Prompt, index: int, value: float | None) -> Answered:
        if value is None:
            return Answered("", None, Spending(task=Usage(failures=1)), "the call failed")
        return Answered(self.texts(prompt, index), value, Spending(task=Usage(requests=1)))


@dataclass
class FakeProposer:
    """A proposer that takes its prompts from a function; one request per requested prompt.

    Attributes:
        texts: called with the current candidate, ``n`` and the seed.
        calls: step size, direction and exemplars of every call, in order.
    """

    texts: Callable[[Candidate, int, int], Sequence[str]]
    calls: list[tuple[int | None, Direction, tuple[Example, ...]]] = field(
        default_factory=list[tuple[int | None, Direction, tuple[Example, ...]]]
    )

    async def propose(
        self,
        current: Candidate,
        direction: Direction,
        *,
        step_size: int | None,
        exemplars: Sequence[Example],
        n: int,
        seed: int,
        on_prompt: OnPrompt = ignore_prompt,
    ) -> Proposals:
        """Propose with ``texts``; see ``gpo.strategies.proposer.Proposer``."""
        self.calls.append((step_size, direction, tuple(exemplars)))
        await asyncio.sleep(0)
        prompts = tuple(Prompt(text) for text in self.texts(current, n, seed))
        for prompt in prompts:
            on_prompt(prompt)
        return Proposals(prompts, num_malformed=max(0, n - len(prompts)), usage=Usage(requests=n))


@dataclass
class WordEmbedder:
    """Embeds texts as counts of hashed words, so that texts with common words are similar.

    Attributes:
        dimensions: length of the vectors.
        calls: the texts of every call, in order.
    """

    dimensions: int = 64
    calls: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """One vector per text, zero for a text without words; see ``gpo.models.protocol.Embedder``."""
        self.calls.append(tuple(texts))
        await asyncio.sleep(0)
        return [self._vector(text) for text in texts]

    def _vector(self, text: str) -> list[float]:
        counts = [0.0] * self.dimensions
        for word in text.lower().split():
            counts[int.from_bytes(blake2b(word.encode(), digest_size=4).digest()) % self.dimensions] += 1.0
        return counts
