"""The client of the evaluator that runs in Ray Serve."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from gpo.data.task import Split
from gpo.errors import OutOfReach, Part
from gpo.evaluation.evaluator import Answered, Evaluation
from gpo.prompt import Prompt
from gpo.runtime.concurrency import gather
from gpo.runtime.context import current_caller, current_step
from gpo.text import first_line

log = logging.getLogger(__name__)

_WAITS_S = (0.1, 1.0, 2.0, 4.0, 8.0, 16.0, 16.0)
"""Waits before a request whose replica died is repeated. The first is short: another replica may be running already."""


@dataclass(frozen=True, slots=True)
class ServeEvaluator:
    """An ``Evaluator`` and ``Answerer`` of one task that sends requests to the Serve deployment. Pickles.

    A request whose replica dies is repeated with another replica; earlier answers then come from the completion
    cache. While no replica runs, requests wait. Both methods raise ``OutOfReach`` if too many replicas die.
    """

    handle: DeploymentHandle[Any]
    task: str

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self.handle, self.task)

    async def evaluate(
        self, prompts: Sequence[Prompt], split: Split, indices: Sequence[int] | None = None
    ) -> Sequence[Evaluation]:
        """Send one request per prompt, so that several replicas share the work."""
        rows = await gather(self._evaluate(prompt, split, indices) for prompt in prompts)
        return [evaluation for row in rows for evaluation in row]

    async def answer(self, prompt: Prompt, split: Split, indices: Sequence[int]) -> Sequence[Answered]:
        """Send one request for all examples."""
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


def _unpickled(handle: DeploymentHandle[Any], task: str) -> ServeEvaluator:
    # Each handle starts a router, which outlives the handle, so a process uses one handle per deployment.
    return ServeEvaluator(_HANDLES.setdefault(handle.deployment_id, handle), task)


async def reply(ask: Callable[[], Any]) -> Any:
    """The reply of a replica; if the replica dies, another one is asked.

    Args:
        ask: sends the request through the deployment's handle. Cancelling this coroutine cancels the request.

    Raises:
        OutOfReach: too many replicas died.
        RayTaskError: the evaluator raised an error, which is the cause.
    """
    waits_s = iter(_WAITS_S)
    while True:
        try:
            return await _one_reply(ask)
        except RayTaskError:
            raise  # from the evaluator, in a replica that lives
        except (RayError, RayServeException) as lost:
            wait_s = next(waits_s, None)
            if wait_s is None:
                reason = first_line(lost)
                raise OutOfReach(Part.EVALUATOR, f"{len(_WAITS_S) + 1} requests were lost; {reason}") from None
            log.warning("a replica of the evaluator was lost; asking again in %g s: %s", wait_s, lost)
        await asyncio.sleep(wait_s)


async def _one_reply(ask: Callable[[], Any]) -> Any:
    response = ask()
    try:
        return await response
    except asyncio.CancelledError:
        # Otherwise the replica would continue and pay for an answer that is no longer needed.
        response.cancel()
        raise
