"""Update method: new prompts from the current one and the update direction."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gpo.answering import Position
from gpo.errors import MalformedReply, ModelError, ModelRefused, ModelUnavailable, RefusalReason
from gpo.examples import Example
from gpo.meta_prompt import Direction, MetaPrompt, parse_reply
from gpo.models import ChatModel, Message, Sampling, Usage
from gpo.prompt import Prompt
from gpo.trajectory import Candidate


@dataclass(frozen=True, slots=True)
class Proposals:
    """What the optimizer model wrote: prompts in the order of the samples, repeats included."""

    prompts: tuple[Prompt, ...]
    num_malformed: int
    usage: Usage


class Proposer(Protocol):
    """Writes new prompts."""

    async def propose(
        self, current: Candidate, neighbours: Sequence[Candidate], *, step_size: int | None, n: int, seed: int
    ) -> Proposals:
        """``n`` samples' worth of prompts; fewer where replies hold none.

        ``seed`` decides everything random here: equal arguments and a deterministic model give equal proposals.

        Raises:
            ModelUnavailable, ModelRefused: the optimizer model could not be asked.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationProposer:
    """Generation-based refinement: the model writes a new prompt, guided by the direction. GPO's own choice.

    Each of the ``n`` prompts is one request with a seed of its own, never one request for ``n`` replies: endpoints
    differ in how they count those, and some refuse them.

    Args:
        exemplars: the train examples to draw from; ``num_exemplars`` of them are shown, the same in all ``n``.
    """

    model: ChatModel
    sampling: Sampling
    meta_prompt: MetaPrompt
    exemplars: Sequence[Example]
    num_exemplars: int
    position: Position

    async def propose(
        self, current: Candidate, neighbours: Sequence[Candidate], *, step_size: int | None, n: int, seed: int
    ) -> Proposals:
        draw = random.Random(seed)
        shown = draw.sample(self.exemplars, min(self.num_exemplars, len(self.exemplars)))
        messages = self.meta_prompt.messages(Direction(current, neighbours, step_size, shown, self.position))
        # Endpoints take a signed 32-bit seed at the least.
        seeds = [draw.getrandbits(31) for _ in range(n)]
        samples = await asyncio.gather(*(self._sample(messages, seed) for seed in seeds), return_exceptions=True)
        failures = [sample for sample in samples if isinstance(sample, BaseException)]
        replies = [sample for sample in samples if not isinstance(sample, BaseException)]
        # One lost sample is a smaller step; nothing but lost samples is a model that cannot be asked.
        final = [failure for failure in failures if not _concerns_one_sample(failure)]
        if final or (failures and not replies):
            raise (final or failures)[0]
        prompts = tuple(prompt for prompt, _ in replies if prompt is not None)
        retries = sum(failure.retries for failure in failures if isinstance(failure, ModelUnavailable))
        usage = sum((usage for _, usage in replies), start=Usage(failures=len(failures), retries=retries))
        return Proposals(prompts, num_malformed=len(replies) - len(prompts), usage=usage)

    async def _sample(self, messages: Sequence[Message], seed: int) -> tuple[Prompt | None, Usage]:
        reply = await self.model.complete(messages, self.sampling.seeded(seed).stopping_at(self.meta_prompt.stop))
        try:
            return parse_reply(reply), reply.usage
        except MalformedReply:
            return None, reply.usage


def _concerns_one_sample(failure: BaseException) -> bool:
    refused_everything = isinstance(failure, ModelRefused) and failure.reason is not RefusalReason.REQUEST
    return isinstance(failure, ModelError) and not refused_everything
