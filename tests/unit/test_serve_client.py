from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, cast

import pytest

from gpo.evaluation import Evaluation
from gpo.models import Usage
from gpo.prompt import Prompt
from gpo.score import Score
from gpo.tasks import Split
from serve.client import ServeEvaluator

SCORED = Evaluation(Score((1.0,)), Usage(requests=1))


class Response:
    """A reply of a replica that is still at work."""

    def __init__(self, work: asyncio.Future[list[Evaluation]]) -> None:
        self.work, self.cancelled = work, False

    def __await__(self) -> Generator[Any, None, list[Evaluation]]:
        return self.work.__await__()

    def cancel(self) -> None:
        self.cancelled = True


class Handle:
    """What stands for the handle of a deployment: it keeps the responses that it gave."""

    def __init__(self) -> None:
        self.responses: list[Response] = []
        self.evaluate = self

    def remote(self, task: str, prompts: list[Prompt], split: Split) -> Response:
        self.responses.append(Response(asyncio.get_running_loop().create_future()))
        return self.responses[-1]


async def asked(handle: Handle, *prompts: str) -> asyncio.Task[Any]:
    evaluator = ServeEvaluator(cast("Any", handle), "desk")
    task = asyncio.create_task(evaluator.evaluate([Prompt(text) for text in prompts], Split.VAL))  # type: ignore[arg-type]
    await asyncio.sleep(0.01)
    return task


async def test_a_prompt_is_a_request_and_order_is_kept() -> None:
    handle = Handle()
    task = await asked(handle, "a", "b")
    other = Evaluation(Score((0.0,)), Usage())
    handle.responses[1].work.set_result([other])
    handle.responses[0].work.set_result([SCORED])
    assert await task == [SCORED, other]


async def test_who_goes_away_stops_the_replica() -> None:
    handle = Handle()
    task = await asked(handle, "a", "b")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [response.cancelled for response in handle.responses] == [True, True]


async def test_one_failure_stops_the_other_requests() -> None:
    handle = Handle()
    task = await asked(handle, "a", "b")
    handle.responses[0].work.set_exception(RuntimeError("lost"))
    with pytest.raises(RuntimeError, match="lost"):
        await task
    assert handle.responses[1].cancelled
