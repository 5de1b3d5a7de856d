"""Update method: asks the optimizer model for new prompts and parses its replies."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from gpo.data.example import Example
from gpo.errors import MalformedReply, ModelError, ModelRefused
from gpo.evaluation.answer_format import Position
from gpo.models.protocol import ChatModel, Completion, Message, Sampling, Usage, given_up
from gpo.prompt import Prompt, edit_distance, parts_of
from gpo.runtime.concurrency import gather
from gpo.strategies.meta_prompt import Brief, MetaPrompt
from gpo.strategies.parts import direction_of, part_of, with_part
from gpo.strategies.rules import Rule, Rules
from gpo.strategies.sections import without_frame
from gpo.text import without_controls
from gpo.trajectory import Candidate, Direction

_START = re.compile(r"<START>", re.IGNORECASE)
_END = re.compile(r"</?END>|</START>", re.IGNORECASE)
# One pair of quotation marks around the whole text; not a quoted word at either end, nor an apostrophe in a word.
_QUOTED = re.compile(
    r"""\s*(?:"([^"]*)"|“([^“”]*)”|'((?:[^']|(?<=\w)'(?=\w))*)'|```(?:\w*\n)?([^`]*)```|`([^`]*)`)\s*"""
)
_BLANK_LINE = re.compile(r"\n\s*\n")
MAX_WORDS, MAX_CHARACTERS = 1000, 20_000
"""Bounds on a new prompt."""


@dataclass(frozen=True, slots=True)
class Proposals:
    """The prompts that the optimizer model wrote, in the order of the samples, with repeats.

    Attributes:
        num_malformed: replies without a prompt.
        num_rejected: prompts that exceeded an enforced step size.
        num_failed: failed calls.
        broken: for each reply with a prompt that breaks a rule, the rule.
    """

    prompts: tuple[Prompt, ...]
    num_malformed: int
    usage: Usage
    num_rejected: int = 0
    num_failed: int = 0
    broken: tuple[Rule, ...] = ()


OnPrompt = Callable[[Prompt], object]
"""Called with each prompt as soon as it arrives; must not block."""


def ignore_prompt(prompt: Prompt) -> None:
    """An ``OnPrompt`` that does nothing."""


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
        on_prompt: OnPrompt = ignore_prompt,
    ) -> Proposals:
        """Sample ``n`` prompts; fewer result if replies contain none.

        Args:
            exemplars: train examples that show the task.
            seed: fixes all randomness: with a deterministic model, equal arguments give equal proposals.
            on_prompt: called with each prompt in the order of arrival, while others are still being sampled.

        Raises:
            ModelUnavailable, ModelRefused: the optimizer model could not be called.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingProposer:
    """Samples prompts from the optimizer model with a meta-prompt.

    Each of the ``n`` prompts is a separate request with its own seed, since endpoints count a request for ``n`` replies
    differently, and some refuse it.

    Args:
        rules: what each new prompt must keep.
        max_samples: with 1, the step size is only advice. A higher number enforces it: a prompt that exceeds it is
            sampled again, up to this number of samples, and then given up. A malformed reply and a prompt that breaks a
            rule are not sampled again.
    """

    model: ChatModel
    sampling: Sampling
    meta_prompt: MetaPrompt
    position: Position
    rules: Rules = field(default_factory=Rules)
    goal: str | None = None
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
        on_prompt: OnPrompt = ignore_prompt,
    ) -> Proposals:
        draw = random.Random(seed)
        briefs = {one.part: self._brief(current, one, step_size, exemplars) for one in direction.of_parts}
        # Every endpoint accepts a signed 32-bit seed.
        seeds = [draw.getrandbits(31) for _ in range(n)]
        bound = step_size if self.max_samples > 1 else None
        # An error that concerns every call cancels the others immediately.
        rows = await gather(
            self._candidate(
                {part: self.meta_prompt.messages(replace(brief, sample=index)) for part, brief in briefs.items()},
                seed,
                current.prompt,
                bound,
                on_prompt,
            )
            for index, seed in enumerate(seeds)
        )
        samples = [sample for _, row in rows for sample in row]
        # Some failed samples make the step smaller; if all failed, the model is unavailable.
        lost = [sample.failure for sample in samples if sample.failure is not None and sample.num_rejected == 0]
        if lost and len(lost) == len(samples):
            raise lost[0]
        return Proposals(
            prompts=tuple(prompt for prompt, _ in rows if prompt is not None),
            num_malformed=sum(sample.malformed for sample in samples),
            num_rejected=sum(sample.num_rejected for sample in samples),
            num_failed=sum(sample.failure is not None for sample in samples),
            broken=tuple(sample.broken for sample in samples if sample.broken is not None),
            usage=sum((sample.usage for sample in samples), start=Usage()),
        )

    def _brief(
        self, current: Candidate, direction: Direction, step_size: int | None, exemplars: Sequence[Example]
    ) -> Brief:
        part = direction.part
        return Brief(
            part_of(current, part) if part else current,
            direction_of(direction) if part else direction,
            step_size,
            exemplars,
            self.position,
            goal=self.goal,
            rules=self.rules.of(part) if part else self.rules,
        )

    async def _candidate(
        self,
        requests: Mapping[str, Sequence[Message]],
        seed: int,
        current: Prompt,
        bound: int | None,
        on_prompt: OnPrompt,
    ) -> tuple[Prompt | None, Sequence[_Sample]]:
        """A new prompt, with all parts rewritten for which a reply was usable; and the sample of each part.

        Args:
            requests: part → conversation; the part is empty for a prompt without parts.
        """
        samples = await gather(
            self._sample(messages, seed, current, part, bound) for part, messages in requests.items()
        )
        prompt: Prompt | None = None
        for index, (part, sample) in enumerate(zip(requests, samples, strict=True)):
            if sample.prompt is None:
                continue
            if prompt is None:
                prompt = sample.prompt
                continue
            # The bound of a rule may hold for each change alone, and not for both.
            changed = with_part(prompt, part, parts_of(sample.prompt.text)[part])
            if (broken := self.rules.broken(changed)) is None:
                prompt = changed
            else:
                samples[index] = replace(sample, broken=broken)
        if prompt is not None:
            on_prompt(prompt)
        return prompt, samples

    async def _sample(
        self, messages: Sequence[Message], seed: int, current: Prompt, part: str, bound: int | None
    ) -> _Sample:
        draw, usage = random.Random(seed), Usage()
        for num_rejected in range(self.max_samples):
            sampling = self.sampling.seeded(seed).stopping_at(self.meta_prompt.stop)
            try:
                reply = await self.model.complete(messages, sampling)
            except ModelError as failure:
                if not _concerns_one_sample(failure):
                    raise
                # Earlier samples were paid for and still count.
                return _Sample(None, usage + given_up(failure), num_rejected, failure=failure)
            usage += reply.usage
            try:
                prompt = parse_reply(reply)
                prompt = with_part(current, part, prompt.text) if part else prompt
            except (MalformedReply, ValueError):
                return _Sample(None, usage, num_rejected, malformed=True)
            if (broken := self.rules.broken(prompt)) is not None:
                return _Sample(None, usage, num_rejected, broken=broken)
            if bound is None or edit_distance(current, prompt) <= bound:
                return _Sample(prompt, usage, num_rejected)
            seed = draw.getrandbits(31)
        return _Sample(None, usage, self.max_samples)


@dataclass(frozen=True, slots=True)
class _Sample:
    """A prompt from one conversation, or the reason why there is none."""

    prompt: Prompt | None
    usage: Usage
    num_rejected: int
    malformed: bool = False
    broken: Rule | None = None
    failure: ModelError | None = None


def _concerns_one_sample(failure: ModelError) -> bool:
    return not (isinstance(failure, ModelRefused) and failure.reason.concerns_every_call)


def parse_reply(reply: Completion, *, max_words: int = MAX_WORDS) -> Prompt:
    """Extract the prompt from a reply.

    The prompt is the text between the last nonempty ``<START>`` and the following ``<END>`` (or the end of a reply that
    was not cut off), without quotation marks, a code fence or parts of the request around it. A reply without tags is
    the prompt if it is a single paragraph. The prompt is always valid Unicode without control characters.

    Raises:
        MalformedReply: there is no prompt, it was cut off at the token limit, or it has more than ``max_words`` words
            or ``MAX_CHARACTERS`` characters.
    """
    text = without_controls(reply.answer)
    # Only one tag is left if the request already contained the opening one or ``stop`` removed the closing one.
    untagged, *tagged = _START.split(text)
    body = next((part for part in reversed(tagged) if part.strip()), "") if tagged else untagged
    found, *after_end = _END.split(body, maxsplit=1)
    if not tagged and _BLANK_LINE.search(found.strip()):
        raise MalformedReply("the reply has no <START> … <END> and is longer than one paragraph")
    if reply.truncated and not after_end:
        raise MalformedReply("the reply was cut off at max_tokens before <END>")
    quoted = _QUOTED.fullmatch(found)
    found = without_frame(found if quoted is None else quoted[quoted.lastindex or 0])
    if not found:
        raise MalformedReply("the reply contains no prompt")
    if len(found.split()) > max_words:
        raise MalformedReply(f"the prompt in the reply is longer than {max_words} words")
    if len(found) > MAX_CHARACTERS:
        raise MalformedReply(f"the prompt in the reply is longer than {MAX_CHARACTERS} characters")
    return Prompt(found)
