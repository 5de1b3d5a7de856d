from __future__ import annotations

import asyncio
import logging
import pickle
from collections.abc import Generator, Sequence
from typing import Any, cast

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError, TaskCancelledError
from ray.serve.exceptions import ReplicaUnavailableError

from gpo.data.example import Example
from gpo.data.task import Split, Task
from gpo.errors import EvaluationError, ModelUnavailable, OutOfReach, PromptUnscored
from gpo.evaluation.evaluator import Answered, Evaluation, LocalEvaluator
from gpo.evaluation.grading import RuleGrader
from gpo.evaluation.metrics import ExactScorer
from gpo.models.protocol import Sampling, Usage
from gpo.prompt import Prompt
from gpo.runtime.context import ContextFilter, current_caller, log_about
from gpo.score import Score
from gpo.testing.fakes import FakeModel
from gpo.trajectory import Spending
from serve.client import ServeEvaluator
from serve.evaluator import EvaluatorReplica, UnknownTask

SCORED = Evaluation(Score((1.0,)), Usage(requests=1))


class Response:
    """A pending reply of a replica."""

    def __init__(self, work: asyncio.Future[list[Any]]) -> None:
        self.work, self.cancelled = work, False

    def __await__(self) -> Generator[Any, None, list[Any]]:
        return self.work.__await__()

    def cancel(self) -> None:
        self.cancelled = True


class Handle:
    """A fake deployment handle that records its responses."""

    def __init__(self) -> None:
        self.responses: list[Response] = []
        self.outcomes = self.answer = self
        self.asked: list[tuple[Any, ...]] = []

    def remote(self, *arguments: Any) -> Response:
        self.asked.append(arguments)
        self.responses.append(Response(asyncio.get_running_loop().create_future()))
        return self.responses[-1]


class Known:
    """A handle as it is unpickled in a process."""

    def __init__(self, deployment_id: str) -> None:
        self.deployment_id = deployment_id


def test_unpickled_evaluators_of_a_deployment_share_one_handle() -> None:
    sent = [pickle.dumps(ServeEvaluator(cast("Any", Known(name)), "desk")) for name in ("a", "a", "b")]
    first, second, other = (pickle.loads(each) for each in sent)  # noqa: S301  # ours
    assert first.handle is second.handle
    assert first.handle is not other.handle
    assert (first.task, other.handle.deployment_id) == ("desk", "b")


async def asked(handle: Handle, *prompts: str) -> asyncio.Task[Any]:
    evaluator = ServeEvaluator(cast("Any", handle), "desk")
    task = asyncio.create_task(evaluator.evaluate([Prompt(text) for text in prompts], Split.VAL))  # type: ignore[arg-type]
    await until_asked(handle, len(prompts))
    return task


async def test_each_prompt_is_one_request_and_the_order_is_kept() -> None:
    handle = Handle()
    task = await asked(handle, "a", "b")
    other = Evaluation(Score((0.0,)), Usage())
    handle.responses[1].work.set_result([other])
    handle.responses[0].work.set_result([SCORED])
    assert await task == [SCORED, other]


async def test_cancelling_a_request_stops_the_replica() -> None:
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


async def until_asked(handle: Handle, times: int) -> None:
    async with asyncio.timeout(60):
        while len(handle.responses) < times:  # noqa: ASYNC110  # the client counts by itself
            await asyncio.sleep(0.001)


LOST = [ActorDiedError(), ActorUnavailableError("no answer", None), TaskCancelledError(), ReplicaUnavailableError("r")]


@pytest.mark.parametrize("lost", LOST, ids=lambda lost: type(lost).__name__)
async def test_a_request_whose_replica_is_lost_is_repeated(lost: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.client._WAITS_S", (0.0, 0.0))
    handle = Handle()
    task = await asked(handle, "a")
    handle.responses[0].work.set_exception(lost)
    await until_asked(handle, 2)
    assert handle.asked[0] == handle.asked[1]
    handle.responses[1].work.set_result([SCORED])
    assert await task == [SCORED]


async def test_after_bounded_attempts_the_evaluator_is_out_of_reach(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("serve.client._WAITS_S", (0.0, 0.0))
    handle = Handle()
    task = await asked(handle, "a")
    for number in range(3):
        await until_asked(handle, number + 1)
        handle.responses[number].work.set_exception(ActorDiedError())
    with pytest.raises(OutOfReach, match="the evaluator is out of reach: 3 requests were lost"):
        await task
    assert len(handle.responses) == 3


async def test_an_error_of_the_evaluator_is_not_retried() -> None:
    handle = Handle()
    task = await asked(handle, "a")
    cause = EvaluationError("too many")
    handle.responses[0].work.set_exception(RayTaskError("evaluate", "traceback", cause).as_instanceof_cause())
    with pytest.raises(EvaluationError):
        await task
    assert len(handle.responses) == 1


async def test_answers_are_one_request_that_ends_with_its_caller() -> None:
    handle = Handle()
    evaluator = ServeEvaluator(cast("Any", handle), "desk")
    answered = Answered("yes", 1.0, Spending())
    tasks = [asyncio.create_task(evaluator.answer(Prompt("a"), Split.TRAIN, (4, 2))) for _ in range(2)]  # type: ignore[arg-type]
    await until_asked(handle, 2)
    assert handle.asked == [("desk", Prompt("a"), Split.TRAIN, (4, 2), "", None)] * 2
    handle.responses[0].work.set_result([answered])
    assert await tasks[0] == [answered]
    tasks[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[1]
    assert [response.cancelled for response in handle.responses] == [False, True]


async def test_a_replica_answers_for_its_tasks() -> None:
    task = Task("desk", Prompt("a"), {Split.TRAIN: (Example("?", ("yes",)),)}, ExactScorer())
    model = FakeModel(lambda messages, sampling: "yes")
    replica = EvaluatorReplica([LocalEvaluator(task, model, Sampling(), RuleGrader(task.scorer))], 100)
    (answer,) = await replica.answer("desk", Prompt("a"), Split.TRAIN, [0])
    assert (answer.text, answer.value) == ("yes", 1.0)
    with pytest.raises(UnknownTask):
        await replica.answer("other", Prompt("a"), Split.TRAIN, [0])


@pytest.fixture
def handle(monkeypatch: pytest.MonkeyPatch) -> Handle:
    """A handle whose clients wait for other prompts long enough for every test."""
    monkeypatch.setattr("serve.client._NEXT_WITHIN_S", 0.2)
    monkeypatch.setattr("serve.client._GATHERED_S", 3600.0)
    return Handle()


def scoring(
    handle: Handle, indices: Sequence[int], *prompts: str, caller: str = "some/0", step: int = 3
) -> list[asyncio.Task[Sequence[Evaluation]]]:
    current_caller.set(caller)
    log_about(step=step)
    evaluator = ServeEvaluator(cast("Any", handle), "desk")
    return [asyncio.create_task(evaluator.evaluate([Prompt(text)], Split.VAL, indices)) for text in prompts]  # type: ignore[arg-type]


async def test_prompts_that_are_scored_on_the_same_few_examples_share_a_request(handle: Handle) -> None:
    same, other = scoring(handle, [4, 2], "a", "b"), scoring(handle, [4, 3], "a")
    await until_asked(handle, 2)
    about = (Split.VAL, [4, 2], "some/0", 3)
    assert handle.asked == [
        ("desk", [Prompt("a"), Prompt("b")], *about),
        ("desk", [Prompt("a")], Split.VAL, [4, 3], "some/0", 3),
    ]
    unscored = PromptUnscored("all failed", is_refused=True)
    handle.responses[0].work.set_result([SCORED, unscored])
    handle.responses[1].work.set_result([SCORED])
    assert await same[0] == await other[0] == [SCORED]
    with pytest.raises(PromptUnscored, match="all failed"):
        await same[1]


async def test_other_steps_and_other_trajectories_have_requests_of_their_own(handle: Handle) -> None:
    tasks = scoring(handle, [4, 2], "a")
    tasks += scoring(handle, [4, 2], "a", caller="some/1")
    tasks += scoring(handle, [4, 2], "a", caller="some/1", step=4)
    await until_asked(handle, 3)
    assert [asked[-2:] for asked in handle.asked] == [("some/0", 3), ("some/1", 3), ("some/1", 4)]
    for response in handle.responses:
        response.work.set_result([SCORED])
    assert await asyncio.gather(*tasks) == [[SCORED]] * 3


async def test_a_shared_request_asks_for_few_answers(handle: Handle) -> None:
    tasks = scoring(handle, range(12), *"abcde")
    await until_asked(handle, 3)
    sizes = [len(asked[1]) for asked in handle.asked]
    assert sorted(sizes) == [1, 2, 2]
    for size, response in zip(sizes, handle.responses, strict=True):
        response.work.set_result([SCORED] * size)
    assert await asyncio.gather(*tasks) == [[SCORED]] * 5


async def test_a_shared_request_ends_with_the_last_one_that_waits_for_it(handle: Handle) -> None:
    first, second = scoring(handle, [4, 2], "a", "b")
    await until_asked(handle, 1)
    first.cancel()
    await asyncio.wait([first])
    assert not handle.responses[0].cancelled
    second.cancel()
    await asyncio.wait([second])
    assert handle.responses[0].cancelled
    assert first.cancelled()
    assert second.cancelled()


@pytest.mark.parametrize("others", [[], ["b", "c"]])
async def test_a_prompt_whose_caller_was_cancelled_is_not_sent(
    others: list[str], handle: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches, is_complete = list[Any](), asyncio.Event()

    async def gathered(batch: Any) -> None:
        batches.append(batch)
        await is_complete.wait()

    async def joined(*texts: str) -> None:
        async with asyncio.timeout(60):
            while not batches or [*batches[-1].prompts.values()] != [Prompt(text) for text in texts]:  # noqa: ASYNC110
                await asyncio.sleep(0)

    monkeypatch.setattr("serve.client._gathered", gathered)
    gone, *waiting = scoring(handle, [4, 2], "a", *others)
    await joined("a", *others)
    gone.cancel()
    await asyncio.wait([gone])
    waiting += scoring(handle, [4, 2], "d")
    await joined(*others, "d")
    is_complete.set()
    await until_asked(handle, 1)
    assert [prompts for _, prompts, *_ in handle.asked] == [[Prompt(text) for text in [*others, "d"]]]
    evaluations = [Evaluation(Score((float(number),)), Usage()) for number in range(len(waiting))]
    handle.responses[0].work.set_result(evaluations)
    assert await asyncio.gather(*waiting) == [[evaluation] for evaluation in evaluations]


async def test_a_failure_of_a_shared_request_is_everyones(handle: Handle) -> None:
    tasks = scoring(handle, [4, 2], "a", "b")
    await until_asked(handle, 1)
    handle.responses[0].work.set_exception(RuntimeError("lost"))
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["lost", "lost"]


async def test_a_replica_scores_the_requested_examples() -> None:
    examples = tuple(Example(f"? {answer}", (answer,)) for answer in ("yes", "no", "yes"))
    task = Task("desk", Prompt("a"), {Split.VAL: examples}, ExactScorer())
    model = FakeModel(lambda messages, sampling: "yes")
    replica = EvaluatorReplica([LocalEvaluator(task, model, Sampling(), RuleGrader(task.scorer))], 100)
    (evaluation,) = await replica.outcomes("desk", [Prompt("a")], Split.VAL, [1, 0])
    assert isinstance(evaluation, Evaluation)
    assert evaluation.score.values_E == (0.0, 1.0)


async def test_a_prompt_that_cannot_be_scored_does_not_affect_others_of_its_request() -> None:
    def answer(messages: Sequence[Any], sampling: Sampling) -> str:
        if "b" in str(messages):
            raise ModelUnavailable("HTTP 500: broken")
        return "yes"

    task = Task("desk", Prompt("a"), {Split.VAL: (Example("?", ("yes",)),)}, ExactScorer())
    replica = EvaluatorReplica([LocalEvaluator(task, FakeModel(answer), Sampling(), RuleGrader(task.scorer))], 100)
    scored, unscored = await replica.outcomes("desk", [Prompt("go"), Prompt("b")], Split.VAL)
    assert isinstance(scored, Evaluation)
    assert isinstance(unscored, PromptUnscored)
    with pytest.raises(PromptUnscored, match="HTTP 500: broken"):
        await replica.evaluate("desk", [Prompt("go"), Prompt("b")], Split.VAL)


async def test_a_replicas_log_lines_name_the_step(caplog: pytest.LogCaptureFixture) -> None:
    def answer(messages: object, sampling: Sampling) -> str:
        logging.getLogger("gpo").warning("asked")
        return "yes"

    caplog.handler.addFilter(ContextFilter("night"))
    task = Task("desk", Prompt("a"), {Split.VAL: (Example("?", ("yes",)),)}, ExactScorer())
    replica = EvaluatorReplica([LocalEvaluator(task, FakeModel(answer), Sampling(), RuleGrader(task.scorer))], 100)
    await asyncio.gather(
        replica.outcomes("desk", [Prompt("a")], Split.VAL, caller="desk/0", step=4),
        replica.answer("desk", Prompt("a"), Split.VAL, [0], caller="desk/1", step=5),
        replica.evaluate("desk", [Prompt("a")], Split.VAL),
    )
    about = [(line.__dict__["task"], line.__dict__["trajectory"], line.__dict__["step"]) for line in caplog.records]
    assert sorted(about, key=str) == [("desk", "desk/0", 4), ("desk", "desk/1", 5), ("desk", None, None)]
    assert {line.__dict__["run"] for line in caplog.records} == {"night"}
