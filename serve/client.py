"""The evaluator as its callers see it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from ray.serve.handle import DeploymentHandle

from gpo.concurrency import gather
from gpo.evaluation import Answered, Evaluation
from gpo.limits.caller import caller
from gpo.prompt import Prompt
from gpo.tasks import Split


@dataclass(frozen=True, slots=True)
class ServeEvaluator:
    """An ``Evaluator`` and ``Answerer`` of one task that asks the Serve deployment.

    Pickles, and so travels to actors.
    """

    handle: DeploymentHandle[Any]
    task: str

    async def evaluate(
        self, prompts: Sequence[Prompt], split: Split, indices: Sequence[int] | None = None
    ) -> Sequence[Evaluation]:
        """One request per prompt, so that several replicas share the work; never one per model call."""
        rows = await gather(self._evaluate(prompt, split, indices) for prompt in prompts)
        return [evaluation for row in rows for evaluation in row]

    async def answer(self, prompt: Prompt, split: Split, indices: Sequence[int]) -> Sequence[Answered]:
        """One request for all of them."""
        response = self.handle.answer.remote(self.task, prompt, split, indices, caller.get())
        return cast("Sequence[Answered]", await _reply(response))

    async def _evaluate(self, prompt: Prompt, split: Split, indices: Sequence[int] | None) -> Sequence[Evaluation]:
        response = self.handle.evaluate.remote(self.task, [prompt], split, indices, caller.get())
        return cast("Sequence[Evaluation]", await _reply(response))


async def _reply(response: Any) -> Any:
    try:
        return await response
    except asyncio.CancelledError:
        # Awaiting alone does not tell the replica, which would go on and pay for an answer nobody waits for.
        response.cancel()
        raise
