"""Models, evaluators and proposers that need no network: one more implementation of each protocol.

All of them are deterministic, and give way to the event loop once a call, as the real ones do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from gpo.evaluation import Evaluation
from gpo.models import Completion, Message, Sampling, Usage
from gpo.prompt import Prompt
from gpo.proposer import Proposals
from gpo.score import Score
from gpo.tasks import Split
from gpo.trajectory import Candidate

Reply = str | Completion | Exception
"""What a fake model does with one call; an exception is raised."""


@dataclass
class FakeModel:
    """A chat model whose replies a function makes.

    A reply that is a text counts as one request, and its tokens are words.

    Attributes:
        reply: called with the conversation and the sampling settings.
        calls: every conversation with its settings, in the order of the calls.
    """

    reply: Callable[[Sequence[Message], Sampling], Reply]
    calls: list[tuple[tuple[Message, ...], Sampling]] = field(
        default_factory=list[tuple[tuple[Message, ...], Sampling]]
    )

    @classmethod
    def scripted(cls, replies: Iterable[Reply]) -> FakeModel:
        """A model that gives these replies in the order of the calls, and has no more than these."""
        script = iter(replies)

        def next_reply(_messages: Sequence[Message], _sampling: Sampling) -> Reply:
            try:
                return next(script)
            except StopIteration:
                raise AssertionError("the script has no reply left") from None

        return cls(next_reply)

    async def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        """What ``reply`` makes of the call; see ``gpo.models.ChatModel``."""
        self.calls.append((tuple(messages), sampling))
        reply = self.reply(messages, sampling)
        await asyncio.sleep(0)
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, Completion):
            return reply
        asked = sum(len(message["content"].split()) for message in messages)
        return Completion(reply, Usage(requests=1, prompt_tokens=asked, completion_tokens=len(reply.split())))


@dataclass
class FakeEvaluator:
    """An evaluator whose verdicts a function makes: one value per example, and one request for each.

    Attributes:
        values: called with each prompt.
        calls: the prompts and the split of every call, in order.
    """

    values: Callable[[Prompt], Sequence[float | None]]
    calls: list[tuple[tuple[Prompt, ...], Split]] = field(default_factory=list[tuple[tuple[Prompt, ...], Split]])

    async def evaluate(self, prompts: Sequence[Prompt], split: Split) -> Sequence[Evaluation]:
        """What ``values`` makes of each prompt; see ``gpo.evaluation.Evaluator``."""
        self.calls.append((tuple(prompts), split))
        await asyncio.sleep(0)
        scores = [Score(tuple(self.values(prompt))) for prompt in prompts]
        return [Evaluation(score, Usage(requests=score.num_examples)) for score in scores]


@dataclass
class FakeProposer:
    """A proposer whose prompts a function makes; one request for each prompt asked for.

    Attributes:
        texts: called with the current candidate, ``n`` and the seed.
        calls: step size and neighbours of every call, in order.
    """

    texts: Callable[[Candidate, int, int], Sequence[str]]
    calls: list[tuple[int | None, tuple[Candidate, ...]]] = field(
        default_factory=list[tuple[int | None, tuple[Candidate, ...]]]
    )

    async def propose(
        self, current: Candidate, neighbours: Sequence[Candidate], *, step_size: int | None, n: int, seed: int
    ) -> Proposals:
        """What ``texts`` makes of the call; see ``gpo.proposer.Proposer``."""
        self.calls.append((step_size, tuple(neighbours)))
        await asyncio.sleep(0)
        prompts = tuple(Prompt(text) for text in self.texts(current, n, seed))
        return Proposals(prompts, num_malformed=max(0, n - len(prompts)), usage=Usage(requests=n))


@dataclass
class WordEmbedder:
    """Texts as counts of hashed words: texts that share words are alike.

    Attributes:
        dimensions: length of the vectors.
        calls: the texts of every call, in order.
    """

    dimensions: int = 64
    calls: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """One vector per text, zero where it has no word; see ``gpo.models.Embedder``."""
        self.calls.append(tuple(texts))
        await asyncio.sleep(0)
        return [self._vector(text) for text in texts]

    def _vector(self, text: str) -> list[float]:
        counts = [0.0] * self.dimensions
        for word in text.lower().split():
            counts[int.from_bytes(blake2b(word.encode(), digest_size=4).digest()) % self.dimensions] += 1.0
        return counts
