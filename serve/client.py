"""The evaluator as its callers see it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from gpo.concurrency import gather
from gpo.context import current_caller, current_step
from gpo.data.task import Split
from gpo.errors import OutOfReach, Part
from gpo.evaluation.evaluator import Answered, Evaluation
from gpo.prompt import Prompt

log = logging.getLogger(__name__)

_WAITS_S = (0.1, 1.0, 2.0, 4.0, 8.0, 16.0, 16.0)
"""Before a request is made once more whose replica died. The first goes to one that stands already, if there is one."""


@dataclass(frozen=True, slots=True)
class ServeEvaluator:
    """An ``Evaluator`` and ``Answerer`` of one task that asks the Serve deployment.

    A request whose replica dies is made once more, of another: what was answered by then comes from the completion
    cache. It waits for as long as no replica stands at all. Pickles, and so travels to actors.

    Both methods raise ``OutOfReach`` where a request's replicas die too often.
    """

    handle: DeploymentHandle[Any]
    task: str

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (self.handle, self.task)

    async def evaluate(
        self, prompts: Sequence[Prompt], split: Split, indices: Sequence[int] | None = None
    ) -> Sequence[Evaluation]:
        """One request per prompt, so that several replicas share the work; never one per model call."""
        rows = await gather(self._evaluate(prompt, split, indices) for prompt in prompts)
        return [evaluation for row in rows for evaluation in row]

    async def answer(self, prompt: Prompt, split: Split, indices: Sequence[int]) -> Sequence[Answered]:
        """One request for all of them."""
        return cast(
            "Sequence[Answered]",
            await reply(
                lambda: self.handle.answer.remote(
                    self.task, prompt, split, indices, current_caller.get(), current_step()
                )
            ),
        )

    async def _evaluate(self, prompt: Prompt, split: Split, indices: Sequence[int] | None) -> Sequence[Evaluation]:
        return cast(
            "Sequence[Evaluation]",
            await reply(
                lambda: self.handle.evaluate.remote(
                    self.task, [prompt], split, indices, current_caller.get(), current_step()
                )
            ),
        )


_HANDLES: dict[Any, DeploymentHandle[Any]] = {}


def _arrived(handle: DeploymentHandle[Any], task: str) -> ServeEvaluator:
    """With the handle that this process has of the deployment: each brings a router along, which outlives it."""
    return ServeEvaluator(_HANDLES.setdefault(handle.deployment_id, handle), task)


async def reply(ask: Callable[[], Any]) -> Any:
    """What a replica of the evaluator replies; asked once more of another where one dies.

    Args:
        ask: makes the request, by the deployment's handle; the replica is told if nobody waits for it any more.

    Raises:
        OutOfReach: too many replicas died.
        RayTaskError: what the evaluator raised, which is its cause.
    """
    waits_s = iter(_WAITS_S)
    while True:
        try:
            return await _one_reply(ask)
        except RayTaskError:
            raise  # the replica is well: this is what the evaluator raised
        except (RayError, RayServeException) as lost:
            wait_s = next(waits_s, None)
            if wait_s is None:
                said = (str(lost).strip() or type(lost).__name__).splitlines()[0]
                raise OutOfReach(Part.EVALUATOR, f"{len(_WAITS_S) + 1} requests were lost; {said}") from None
            log.warning("a replica of the evaluator was lost; asking again in %g s: %s", wait_s, lost)
        await asyncio.sleep(wait_s)


async def _one_reply(ask: Callable[[], Any]) -> Any:
    response = ask()
    try:
        return await response
    except asyncio.CancelledError:
        # Awaiting alone does not tell the replica, which would go on and pay for an answer nobody waits for.
        response.cancel()
        raise
