"""The first step's candidates: prompts that are not made from the initial prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpo.data.example import Example
from gpo.models.protocol import Usage
from gpo.prompt import Prompt
from gpo.strategies.proposer import OnPrompt, Proposals, ignore_prompt
from gpo.trajectory import Candidate, Direction


@dataclass(frozen=True, slots=True)
class GivenPrompts:
    """A ``Proposer`` of prompts that are known already; it calls no model."""

    prompts: tuple[Prompt, ...]

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
        for prompt in self.prompts:
            on_prompt(prompt)
        return Proposals(self.prompts, num_malformed=0, usage=Usage())
