"""Update method: new prompts from the current one and the update direction."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gpo.concurrency import gather
from gpo.data.example import Example
from gpo.errors import MalformedReply, ModelError, ModelRefused, ModelUnavailable, RefusalReason
from gpo.evaluation.answer_format import Position
from gpo.models.protocol import ChatModel, Completion, Message, Sampling, Usage
from gpo.prompt import Prompt, edit_distance
from gpo.strategies.meta_prompt import Brief, MetaPrompt
from gpo.text import without_controls
from gpo.trajectory import Candidate, Direction

_START = re.compile(r"<START>", re.IGNORECASE)
_END = re.compile(r"</?END>|</START>", re.IGNORECASE)
# One pair of marks around the whole. A quoted word at either end is no such pair, an apostrophe in a word no mark.
_QUOTED = re.compile(
    r"""\s*(?:"([^"]*)"|“([^“”]*)”|'((?:[^']|(?<=\w)'(?=\w))*)'|```(?:\w*\n)?([^`]*)```|`([^`]*)`)\s*"""
)
_BLANK_LINE = re.compile(r"\n\s*\n")


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


Arrived = Callable[[Prompt], object]
"""Told of a prompt the moment it is there; must not block."""


def nobody(prompt: Prompt) -> None:
    """An ``Arrived`` for those who wait for all of them."""


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
        arrived: Arrived = nobody,
    ) -> Proposals:
        """``n`` samples' worth of prompts; fewer where replies hold none.

        ``exemplars`` are train examples that show the task. ``seed`` decides everything random here: equal arguments
        and a deterministic model give equal proposals, in the order of the samples. ``arrived`` is told of each of
        them while others are still being sampled, in the order in which they come.

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
        arrived: Arrived = nobody,
    ) -> Proposals:
        draw = random.Random(seed)
        messages = self.meta_prompt.messages(Brief(current, direction, step_size, exemplars, self.position))
        # Endpoints take a signed 32-bit seed at the least.
        seeds = [draw.getrandbits(31) for _ in range(n)]
        bound = step_size if self.max_samples > 1 else None
        # What concerns every call ends the others at once.
        samples = await gather(self._sample(messages, seed, current.prompt, bound, arrived) for seed in seeds)
        # One lost sample is a smaller step; nothing but lost samples is a model that cannot be asked.
        lost = [sample.failure for sample in samples if sample.failure is not None and sample.num_rejected == 0]
        if lost and len(lost) == len(samples):
            raise lost[0]
        return Proposals(
            prompts=tuple(sample.prompt for sample in samples if sample.prompt is not None),
            num_malformed=sum(sample.malformed for sample in samples),
            num_rejected=sum(sample.num_rejected for sample in samples),
            num_failed=sum(sample.failure is not None for sample in samples),
            usage=sum((sample.usage for sample in samples), start=Usage()),
        )

    async def _sample(
        self, messages: Sequence[Message], seed: int, current: Prompt, bound: int | None, arrived: Arrived
    ) -> _Sample:
        draw, usage = random.Random(seed), Usage()
        for num_rejected in range(self.max_samples):
            sampling = self.sampling.seeded(seed).stopping_at(self.meta_prompt.stop)
            try:
                reply = await self.model.complete(messages, sampling)
            except ModelError as failure:
                if not _concerns_one_sample(failure):
                    raise
                # What was bought before still counts.
                retries = failure.retries if isinstance(failure, ModelUnavailable) else 0
                return _Sample(None, usage + Usage(failures=1, retries=retries), num_rejected, failure=failure)
            usage += reply.usage
            try:
                prompt = parse_reply(reply)
            except MalformedReply:
                return _Sample(None, usage, num_rejected, malformed=True)
            if bound is None or edit_distance(current, prompt) <= bound:
                arrived(prompt)
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
    failure: ModelError | None = None


def _concerns_one_sample(failure: ModelError) -> bool:
    return not (isinstance(failure, ModelRefused) and failure.reason is not RefusalReason.REQUEST)


def parse_reply(reply: Completion, *, max_words: int = 1000, max_characters: int = 20_000) -> Prompt:
    """The prompt in a reply.

    What stands between the last ``<START>`` that anything follows and the ``<END>`` after it (or the end of the reply,
    where the model stopped there by itself), without quotation marks or a code fence around it. A reply without tags
    counts as the prompt where it is a single paragraph. The prompt is always valid Unicode without control characters.

    Raises:
        MalformedReply: no prompt, one cut off at the token limit, or one of more than ``max_words`` words or
            ``max_characters`` characters, such as a single endless word.
    """
    text = without_controls(reply.text)
    # Where the opening tag was put into the model's mouth, or ``stop`` took the closing one, only one tag is left.
    untagged, *tagged = _START.split(text)
    body = next((part for part in reversed(tagged) if part.strip()), "") if tagged else untagged
    found, *after_end = _END.split(body, maxsplit=1)
    if not tagged and _BLANK_LINE.search(found.strip()):
        raise MalformedReply("the reply has no <START> … <END> and is longer than one paragraph")
    if reply.truncated and not after_end:
        raise MalformedReply("the reply was cut off at max_tokens before <END>")
    quoted = _QUOTED.fullmatch(found)
    found = (found if quoted is None else quoted[quoted.lastindex or 0]).strip()
    if not found:
        raise MalformedReply("the reply holds no prompt")
    if len(found.split()) > max_words:
        raise MalformedReply(f"the prompt in the reply is longer than {max_words} words")
    if len(found) > max_characters:
        raise MalformedReply(f"the prompt in the reply is longer than {max_characters} characters")
    return Prompt(found)
