"""The client of the evaluator that runs in Ray Serve."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from gpo.data.task import Split
from gpo.errors import OutOfReach, Part, PromptUnscored
from gpo.evaluation.evaluator import Answered, Evaluation
from gpo.prompt import Prompt
from gpo.runtime.concurrency import gather
from gpo.runtime.context import current_caller, current_step
from gpo.scoring.candidates import Outcome
from gpo.text import first_line

log = logging.getLogger(__name__)

_WAITS_S = (0.1, 1.0, 2.0, 4.0, 8.0, 16.0, 16.0)
"""Waits before a request whose replica died is repeated. The first is short: another replica may be running already."""
_NEXT_WITHIN_S, _GATHERED_S = 0.001, 0.005
"""How long a small request waits for the next prompt, and for all of them. A request costs as much as several model
calls, so prompts share it."""
_MOST_EXAMPLES = 32
"""Answers that a shared request asks for, at most; with more, several replicas share the work."""


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
        """See ``gpo.evaluation.evaluator.Evaluator``.

        Prompts that one trajectory evaluates on the same few examples at the same time share a request. Every other
        prompt has its own.
        """
        return await gather(self._evaluate(prompt, split, indices) for prompt in prompts)

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

    async def _evaluate(self, prompt: Prompt, split: Split, indices: Sequence[int] | None) -> Evaluation:
        if indices is None or 2 * len(indices) > _MOST_EXAMPLES:
            (outcome,) = await self._outcomes([prompt], split, indices)
        else:
            outcome = await self._outcome_with_others(prompt, split, indices)
        if isinstance(outcome, PromptUnscored):
            raise outcome
        return outcome

    async def _outcome_with_others(self, prompt: Prompt, split: Split, indices: Sequence[int]) -> Outcome:
        about = (current_caller.get(), current_step(), self.task, split, tuple(indices))
        key = (asyncio.get_running_loop(), id(self.handle), about)
        batch = _gathering.get(key)
        if batch is None:
            batch = _gathering[key] = _Batch()
            batch.sending = asyncio.create_task(self._sent(batch, key, split, indices))
        me = object()
        batch.prompts[me] = prompt
        if (len(batch.prompts) + 1) * len(indices) > _MOST_EXAMPLES:
            _close(key, batch)
        try:
            # Shielded: the others still wait for the reply if this caller is cancelled.
            return (await asyncio.shield(batch.sending))[me]
        finally:
            del batch.prompts[me]
            if not batch.prompts:
                _close(key, batch)
                if batch.sending.cancel():
                    await asyncio.wait([batch.sending])

    async def _sent(
        self, batch: _Batch, key: Hashable, split: Split, indices: Sequence[int]
    ) -> Mapping[object, Outcome]:
        await _gathered(batch)
        _close(key, batch)
        callers, prompts = list(batch.prompts), list(batch.prompts.values())
        return dict(zip(callers, await self._outcomes(prompts, split, indices), strict=True))

    async def _outcomes(
        self, prompts: Sequence[Prompt], split: Split, indices: Sequence[int] | None
    ) -> Sequence[Outcome]:
        """Send one request for all prompts."""
        return cast(
            "Sequence[Outcome]",
            await reply(
                lambda: self.handle.outcomes.remote(
                    self.task, prompts, split, indices, current_caller.get(), current_step()
                )
            ),
        )


@dataclass(slots=True)
class _Batch:
    """A request that is about to be sent or waits for its reply.

    Attributes:
        prompts: of those who wait for the reply, by caller; a caller that is cancelled leaves.
        sending: sends the request; its result is caller → outcome.
    """

    prompts: dict[object, Prompt] = field(default_factory=dict[object, Prompt])
    sending: asyncio.Task[Mapping[object, Outcome]] = field(init=False)


_gathering: dict[Hashable, _Batch] = {}
"""What a small request is about → the request that still takes prompts."""


async def _gathered(batch: _Batch) -> None:
    """Wait until no further prompt comes, or for as long as a request may wait."""
    loop = asyncio.get_running_loop()
    num_prompts, end = 0, loop.time() + _GATHERED_S
    while num_prompts < len(batch.prompts) and loop.time() < end:
        num_prompts = len(batch.prompts)
        await asyncio.sleep(_NEXT_WITHIN_S)


def _close(key: Hashable, batch: _Batch) -> None:
    """Let the request take no more prompts."""
    if _gathering.get(key) is batch:
        del _gathering[key]


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
