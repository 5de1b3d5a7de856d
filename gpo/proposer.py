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
from gpo.meta_prompt import Brief, MetaPrompt
from gpo.models import ChatModel, Message, Sampling, Usage
from gpo.prompt import Prompt, edit_distance
from gpo.replies import parse_reply
from gpo.trajectory import Candidate, Direction


@dataclass(frozen=True, slots=True)
class Proposals:
    """What the optimizer model wrote: prompts in the order of the samples, repeats included.

    ``num_malformed`` counts replies in which no prompt was found, ``num_rejected`` prompts that were not taken because
    they went beyond an enforced step size, ``num_failed`` replies that never came.
    """

    prompts: tuple[Prompt, ...]
    num_malformed: int
    usage: Usage
    num_rejected: int = 0
    num_failed: int = 0


class Proposer(Protocol):
    """Writes new prompts."""

    async def propose(
        self,
        current: Candidate,
        direction: Direction,
        *,
        step_size: int | None,
        exemplars: Sequence[Example],
        n: int,
        seed: int,
    ) -> Proposals:
        """``n`` samples' worth of prompts; fewer where replies hold none.

        ``exemplars`` are train examples that show the task. ``seed`` decides everything random here: equal arguments
        and a deterministic model give equal proposals.

        Raises:
            ModelUnavailable, ModelRefused: the optimizer model could not be asked.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingProposer:
    """Samples prompts from the optimizer model, which the meta-prompt tells what to do.

    Each of the ``n`` prompts is one request with a seed of its own, never one request for ``n`` replies: endpoints
    differ in how they count those, and some refuse them.

    Args:
        max_samples: the step size is advice where this is 1. A higher number enforces it: a prompt that goes beyond is
            sampled anew, until so many samples were bought for it, and then given up. A malformed reply ends it too.
    """

    model: ChatModel
    sampling: Sampling
    meta_prompt: MetaPrompt
    position: Position
    max_samples: int = 1

    async def propose(
        self,
        current: Candidate,
        direction: Direction,
        *,
        step_size: int | None,
        exemplars: Sequence[Example],
        n: int,
        seed: int,
    ) -> Proposals:
        draw = random.Random(seed)
        messages = self.meta_prompt.messages(Brief(current, direction, step_size, exemplars, self.position))
        # Endpoints take a signed 32-bit seed at the least.
        seeds = [draw.getrandbits(31) for _ in range(n)]
        bound = step_size if self.max_samples > 1 else None
        samples = await asyncio.gather(
            *(self._sample(messages, seed, current.prompt, bound) for seed in seeds), return_exceptions=True
        )
        failures = [sample for sample in samples if isinstance(sample, BaseException)]
        replies = [sample for sample in samples if not isinstance(sample, BaseException)]
        # One lost sample is a smaller step; nothing but lost samples is a model that cannot be asked.
        final = [failure for failure in failures if not _concerns_one_sample(failure)]
        if final or (failures and not replies):
            raise (final or failures)[0]
        retries = sum(failure.retries for failure in failures if isinstance(failure, ModelUnavailable))
        return Proposals(
            prompts=tuple(sample.prompt for sample in replies if sample.prompt is not None),
            num_malformed=sum(sample.malformed for sample in replies),
            num_rejected=sum(sample.num_rejected for sample in replies),
            num_failed=len(failures) + sum(sample.failed for sample in replies),
            usage=sum((sample.usage for sample in replies), start=Usage(failures=len(failures), retries=retries)),
        )

    async def _sample(self, messages: Sequence[Message], seed: int, current: Prompt, bound: int | None) -> _Sample:
        draw, usage = random.Random(seed), Usage()
        for num_rejected in range(self.max_samples):
            sampling = self.sampling.seeded(seed).stopping_at(self.meta_prompt.stop)
            try:
                reply = await self.model.complete(messages, sampling)
            except ModelError as failure:
                if num_rejected == 0 or not _concerns_one_sample(failure):
                    raise
                # What was bought before still counts.
                retries = failure.retries if isinstance(failure, ModelUnavailable) else 0
                return _Sample(None, usage + Usage(failures=1, retries=retries), num_rejected, failed=True)
            usage += reply.usage
            try:
                prompt = parse_reply(reply)
            except MalformedReply:
                return _Sample(None, usage, num_rejected, malformed=True)
            if bound is None or edit_distance(current, prompt) <= bound:
                return _Sample(prompt, usage, num_rejected)
            seed = draw.getrandbits(31)
        return _Sample(None, usage, self.max_samples)


@dataclass(frozen=True, slots=True)
class _Sample:
    """One of the ``n`` prompts, or what became of it."""

    prompt: Prompt | None
    usage: Usage
    num_rejected: int
    malformed: bool = False
    failed: bool = False


def _concerns_one_sample(failure: BaseException) -> bool:
    refused_everything = isinstance(failure, ModelRefused) and failure.reason is not RefusalReason.REQUEST
    return isinstance(failure, ModelError) and not refused_everything
