"""Programs of the user, whose calls are answered over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import Queue
from typing import Any

import openai
import pytest
from aiohttp import web

from benchmarks.simulated.modes import Mode
from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from gpo.cache.sqlite import SqliteStore
from gpo.data.example import Example
from gpo.data.task import Split, Task
from gpo.errors import AnswerError, BudgetExhausted, EvaluationError, ModelRefused
from gpo.evaluation.answer_format import AnswerFormat, Position
from gpo.evaluation.evaluator import Answered, LocalEvaluator
from gpo.evaluation.grading import RuleGrader
from gpo.evaluation.metrics import LabelScorer
from gpo.evaluation.program import Program, ProgramSpec
from gpo.evaluation.program_calls import OfferedModel, Response, caller_named, current_example
from gpo.evaluation.program_function import Answer
from gpo.limits.gate import Gate
from gpo.limits.limiter import LocalLimiter
from gpo.limits.messages import Budget, Pool, Spent
from gpo.models.cached import CachedModel
from gpo.models.endpoint import Endpoint
from gpo.models.limited import LimitedModel
from gpo.models.openai import openai_model
from gpo.models.protocol import Forwarded, Sampling, Usage
from gpo.models.retrying import RetryingModel, RetryPolicy
from gpo.prompt import Prompt, joined_parts
from gpo.user_code.functions import FunctionReference, passed_functions
from tests.servers import serving

ROW = {"text": "Hello, the invoice is wrong, so what should I do now?", "label": "billing", "id": 7}
EXAMPLE = Example(ROW["text"], ("billing",), row=ROW)
GOOD = (
    "Read carefully: classify the customer ticket exactly. Answer with a single word only, one lowercase category "
    "label, the best topic of billing, technical, shipping, account. Decide by department, reason, support, nothing."
)
QUICK = RetryPolicy(max_attempts=2, patience_s=0.1, max_backoff_s=0.01)
DEFAULTS = {"temperature": 0, "max_tokens": 64}
TASK = Task(
    "tickets",
    Prompt(GOOD),
    {Split.VAL: (EXAMPLE,), Split.TRAIN: (), Split.TEST: ()},
    LabelScorer(("billing", "technical", "shipping", "account")),
    AnswerFormat(Position.PROGRAM),
)


def remote(base_url: str, name: str = "task-model", gate: Gate | None = None) -> RetryingModel:
    return openai_model(Endpoint(base_url, name), gate, QUICK)


def program(
    models: str | Mapping[str, OfferedModel], names: tuple[str, ...] = ("prompt",), max_seconds: float = 20.0
) -> Program:
    if isinstance(models, str):
        models = {"task-model": OfferedModel(remote(models), DEFAULTS)}
    return Program(ProgramSpec(FunctionReference("own", "answer"), names, max_seconds, ("label",)), models)


async def respond(function: Callable[..., Any], made: str | Program, prompt: str = GOOD) -> Response:
    made = program(made) if isinstance(made, str) else made
    with passed_functions({"own:answer": function}):
        return await made.respond(Prompt(prompt), EXAMPLE)


async def answered(function: Callable[..., Any], made: str | Program) -> Answered:
    made = program(made) if isinstance(made, str) else made
    with passed_functions({"own:answer": function}):
        evaluator = LocalEvaluator(TASK, remote("http://127.0.0.1:9/v1"), Sampling(), RuleGrader(TASK.scorer), 0, made)
        (found,) = await evaluator.answer(TASK.initial, Split.VAL, [0])
        return found


async def one_call(prompts: dict[str, str], example: dict[str, Any], client: openai.AsyncOpenAI) -> str:
    return await asked(client, f"{prompts['prompt']}\n{example['text']}")


async def asked(client: openai.AsyncOpenAI, content: str, **settings: Any) -> str:
    reply = await client.chat.completions.create(
        model=settings.pop("model", "task"), messages=[{"role": "user", "content": content}], **settings
    )
    return str(reply.choices[0].message.content)


class TestAnswers:
    async def test_an_async_function(self, endpoint: SimulatedEndpoint) -> None:
        found = await respond(one_call, endpoint.base_url)
        assert (found.answer, found.problem, found.fault) == ("billing", "", "")
        assert (found.usage.requests, len(endpoint.requests)) == (1, 1)
        assert found.usage.prompt_tokens == endpoint.requests[0].prompt_tokens
        assert found.text == "[prompt] billing\nThe answer: billing"

    async def test_a_plain_function_runs_in_a_thread(self, endpoint: SimulatedEndpoint) -> None:
        threads = []

        def answer(prompts: dict[str, str], example: dict[str, Any], client: openai.OpenAI) -> str:
            threads.append(threading.current_thread())
            content = f"{prompts['prompt']}\n{example['text']}"
            reply = client.chat.completions.create(model="task", messages=[{"role": "user", "content": content}])
            return str(reply.choices[0].message.content)

        found = await respond(answer, endpoint.base_url)
        assert (found.answer, found.usage.requests) == ("billing", 1)
        assert threads[0] is not threading.main_thread()

    async def test_only_so_many_plain_functions_run_at_once_and_waiting_for_a_turn_is_no_hanging(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("gpo.evaluation.program._MAX_THREADS", 2)
        running: list[int] = []
        both, most = threading.Barrier(2), 0

        def answer(prompts: dict[str, str], example: dict[str, Any], client: openai.OpenAI) -> str:
            nonlocal most
            running.append(1)
            most = max(most, len(running))
            both.wait(20)  # two are here at once
            running.pop()
            both.wait(20)
            return "billing"

        made = program("http://127.0.0.1:9/v1")
        with passed_functions({"own:answer": answer}):
            found = await asyncio.gather(*(made.respond(Prompt(GOOD), EXAMPLE) for _ in range(6)))
        assert ([one.answer for one in found], most) == (["billing"] * 6, 2)

    async def test_the_first_request_is_sent_before_most_programs_have_prepared_theirs(self) -> None:
        started, started_at_request = list[int](), list[int]()

        class Model:
            async def forward(self, route: str, body: Mapping[str, Any]) -> Forwarded:
                started_at_request.append(len(started))
                return Forwarded({"choices": [{"message": {"content": "billing"}}]}, Usage(requests=1))

        async def answer(prompts: dict[str, str], example: dict[str, Any], client: openai.AsyncOpenAI) -> str:
            started.append(1)
            return await one_call(prompts, example, client)

        gate = Gate(LocalLimiter(), Pool("http://127.0.0.1:9/v1", "own", 8, 8))
        made = program({"own": OfferedModel(LimitedModel(Model(), gate), {})})  # type: ignore[arg-type]
        with passed_functions({"own:answer": answer}):
            found = await asyncio.gather(*(made.respond(Prompt(GOOD), EXAMPLE) for _ in range(48)))
        assert [one.answer for one in found] == ["billing"] * 48
        assert started_at_request[0] < 24

    async def test_an_object_with_a_call_method(self, endpoint: SimulatedEndpoint) -> None:
        class Agent:
            async def __call__(self, prompts: dict[str, str], example: dict[str, Any], client: Any) -> Answer:
                return Answer(await one_call(prompts, example, client), trace="looked it up")

        found = await respond(Agent(), endpoint.base_url)
        assert found.answer == "billing"
        assert found.text.endswith("The answer: billing\nlooked it up")

    @pytest.mark.parametrize(
        ("returned", "answer"), [("x", "x"), (3, "3"), (0.5, "0.5"), ("a" * 200_000, "a" * 100_000)]
    )
    async def test_what_it_returns_is_the_answer(self, returned: Any, answer: str) -> None:
        assert (await respond(lambda *_: returned, "http://127.0.0.1:9/v1")).answer == answer

    async def test_a_program_can_score_its_answer_itself(self) -> None:
        found = await answered(lambda *_: Answer("x", score=0.25, reason="no\nsource"), "http://127.0.0.1:9/v1")
        assert (found.value, found.reason, found.flaws.unreadable) == (0.25, "no source", 0)
        right = await answered(lambda *_: Answer("x", score=1, reason="fine"), "http://127.0.0.1:9/v1")
        assert (right.value, right.reason) == (1.0, "")
        with pytest.raises(EvaluationError, match=r"returned the score 1\.5, not a number from 0 to 1"):
            await answered(lambda *_: Answer("x", score=1.5), "http://127.0.0.1:9/v1")

    async def test_it_sees_the_columns_without_the_target(self) -> None:
        seen: list[Any] = []
        await respond(
            lambda prompts, example, _: str(seen.append((prompts, example))), "http://127.0.0.1:9/v1", "Sort."
        )
        assert seen == [({"prompt": "Sort."}, {"text": ROW["text"], "id": 7})]

    async def test_of_several_prompts_each_call_is_attributed_to_its_own(self, endpoint: SimulatedEndpoint) -> None:
        async def answer(prompts: dict[str, str], example: dict[str, Any], client: openai.AsyncOpenAI) -> str:
            await asked(client, f"{prompts['plan']}\n{example['text']}")
            await asked(client, "Which one? yes or no")
            return await asked(client, f"{prompts['answer']}\n{example['text']}")

        # One text contains the other, and both have characters that JSON escapes.
        names, texts = ("plan", "answer"), {"plan": 'Say "what".', "answer": 'Say "what".\nThen stop.'}
        found = await respond(answer, program(endpoint.base_url, names), joined_parts(texts))
        assert [call.part for call in found.calls] == ["plan", "", "answer"]
        assert found.usage.requests == len(endpoint.requests) == 3
        assert [line.partition(" ")[0] for line in found.text.splitlines()] == ["[plan]", "[call]", "[answer]", "The"]
        assert sum(call.usage.prompt_tokens for call in found.calls) == found.usage.prompt_tokens

    async def test_calls_at_temperature_0_are_sent_once(self, endpoint: SimulatedEndpoint, tmp_path: Path) -> None:
        model = CachedModel(remote(endpoint.base_url), SqliteStore(tmp_path / "c.sqlite"), {"model": "task-model"})  # type: ignore[arg-type]
        made = program({"task-model": OfferedModel(model, DEFAULTS)})

        async def twice(prompts: dict[str, str], example: dict[str, Any], client: openai.AsyncOpenAI) -> str:
            content = f"{prompts['prompt']}\n{example['text']}"
            await asyncio.gather(*(asked(client, content) for _ in range(3)))
            await client.embeddings.create(model="task", input=content)
            await client.embeddings.create(model="task", input=content)
            await asked(client, content, temperature=1)
            return await asked(client, content, temperature=1)

        first, second = await respond(twice, made), await respond(twice, made)
        assert (first.usage.requests, first.usage.cached) == (4, 3)
        assert (second.usage.requests, second.usage.cached) == (2, 5)
        contents = [record.content for record in endpoint.requests if record.path.endswith("completions")]
        assert len(endpoint.requests) == 6
        assert len(set(contents)) == 2  # the greedy one once, the other four times


class TestRequests:
    async def test_tools_and_unknown_fields_pass_unchanged(self) -> None:
        tools = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
        called = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"city": "Ulm"}'}}
        seen: list[dict[str, Any]] = []

        async def handle(request: web.Request) -> web.Response:
            seen.append(await request.json())
            message = {"role": "assistant", "content": None, "tool_calls": [called], "reasoning": "a field of its own"}
            if len(seen) > 1:
                message = {"role": "assistant", "content": "Danube"}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return web.json_response({"id": "x", "object": "chat.completion", "choices": [choice]})

        async def answer(prompts: dict[str, str], example: dict[str, Any], client: openai.AsyncOpenAI) -> str:
            messages: list[Any] = [{"role": "user", "content": prompts["prompt"]}]
            reply = await client.chat.completions.create(
                model="task", messages=messages, tools=tools, tool_choice="auto", extra_body={"odd": 1}
            )
            message = reply.choices[0].message
            assert message.model_extra == {"reasoning": "a field of its own"}
            (call,) = message.tool_calls
            messages += [message, {"role": "tool", "tool_call_id": call.id, "content": "the river Danube"}]
            return await asked_with(client, messages)

        async def asked_with(client: openai.AsyncOpenAI, messages: list[Any]) -> str:
            reply = await client.chat.completions.create(model="task", messages=messages, max_tokens=5, temperature=0.5)
            return str(reply.choices[0].message.content)

        async with serving(handle) as url:
            found = await respond(answer, url)
        assert found.answer == "Danube"
        assert found.text == '[prompt] calls look_up({"city": "Ulm"})\n[prompt] Danube\nThe answer: Danube'
        assert seen[0] == {
            "model": "task-model", "messages": [{"role": "user", "content": GOOD}], "tools": tools,
            "tool_choice": "auto", "odd": 1, **DEFAULTS,
        }  # fmt: skip
        assert seen[1]["messages"][1]["tool_calls"] == [called]
        assert (seen[1]["max_tokens"], seen[1]["temperature"]) == (5, 0.5)
        assert found.usage.unmetered == 2

    async def test_replies_can_be_read_as_a_stream(self, endpoint: SimulatedEndpoint) -> None:
        async def answer(prompts: dict[str, str], example: dict[str, Any], client: openai.AsyncOpenAI) -> str:
            stream = await client.chat.completions.create(
                model="task", messages=[{"role": "user", "content": f"{GOOD}\n{example['text']}"}], stream=True
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        assert (await respond(answer, endpoint.base_url)).answer == "billing"

    async def test_embeddings(self, endpoint: SimulatedEndpoint) -> None:
        async def answer(prompts: dict[str, str], example: dict[str, Any], client: openai.AsyncOpenAI) -> str:
            reply = await client.embeddings.create(model="embed-model", input=["a", "b"])
            return f"{len(reply.data)} of {len(reply.data[0].embedding)}"

        models = {"task-model": OfferedModel(remote(endpoint.base_url), DEFAULTS)}
        models["embed-model"] = OfferedModel(remote(endpoint.base_url, "embed-model"), {})
        assert (await respond(answer, program(models))).answer == "2 of 64"
        assert [record.model for record in endpoint.requests] == ["embed-model"]

    @pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
    async def test_a_bound_of_the_program_replaces_the_configured_one(
        self, field: str, endpoint: SimulatedEndpoint
    ) -> None:
        async def answer(prompts: dict[str, str], example: dict[str, Any], client: openai.AsyncOpenAI) -> str:
            return await asked(client, "Invoice. Which?", **{field: 1})

        (call,) = (await respond(answer, endpoint.base_url)).calls
        assert call.request[field] == 1

    @pytest.mark.parametrize("mode", [Mode.REFUSES_TEMPERATURE, Mode.REFUSES_MAX_TOKENS])
    async def test_configured_settings_that_the_endpoint_refuses_are_left_out(self, mode: Mode) -> None:
        with SimulatedEndpoint(Behaviour(mode=mode)) as endpoint:
            made = program(endpoint.base_url)
            assert [(await respond(one_call, made)).answer for _ in range(2)] == ["billing"] * 2
            assert [record.status for record in endpoint.requests] == [400, 200, 200]  # refused once

    async def test_an_unknown_model_is_a_bug_even_if_the_program_ignores_it(self, endpoint: SimulatedEndpoint) -> None:
        async def answer(prompts: dict[str, str], example: dict[str, Any], client: openai.AsyncOpenAI) -> str:
            with contextlib.suppress(openai.OpenAIError):
                return await asked(client, "Which?", model="gpt-9")
            return "billing"

        with pytest.raises(
            EvaluationError, match="asked for the model 'gpt-9'; the configured models are: task, task-mod"
        ):
            await respond(answer, endpoint.base_url)
        assert endpoint.requests == []

    @pytest.mark.parametrize("is_async", [True, False])
    async def test_an_unexpected_failure_of_a_call_ends_the_run_whatever_the_program_does(
        self, caplog: pytest.LogCaptureFixture, *, is_async: bool
    ) -> None:
        class Broken:
            async def forward(self, route: str, body: Mapping[str, Any]) -> Forwarded:
                raise RuntimeError("a mistake of ours")

        statuses = list[int]()

        async def answer_async(prompts: dict[str, str], example: dict[str, Any], client: openai.AsyncOpenAI) -> str:
            try:
                return await asked(client, "Which?")
            except openai.APIStatusError as error:
                statuses.append(error.status_code)
            return "billing"

        def answer(prompts: dict[str, str], example: dict[str, Any], client: openai.OpenAI) -> str:
            try:
                client.chat.completions.create(model="task", messages=[{"role": "user", "content": "Which?"}])
            except openai.APIStatusError as error:
                statuses.append(error.status_code)
            return "billing"

        made = program({"own": OfferedModel(Broken(), {})})
        with pytest.raises(EvaluationError, match="a call of the program failed for an unexpected reason"):
            await respond(answer_async if is_async else answer, made)
        assert statuses == [500]  # as over HTTP
        assert "a mistake of ours" in caplog.text

    def test_a_call_after_the_end_of_the_run_is_refused(self, endpoint: SimulatedEndpoint) -> None:
        has_ended, outcome = threading.Event(), Queue[int]()

        def answer(prompts: dict[str, str], example: dict[str, Any], client: openai.OpenAI) -> str:
            has_ended.wait(20)
            try:
                client.chat.completions.create(model="task", messages=[{"role": "user", "content": "Late?"}])
            except openai.APIStatusError as error:
                outcome.put(error.status_code)
            return "billing"

        found = asyncio.run(respond(answer, program(endpoint.base_url, max_seconds=0.1)))
        has_ended.set()
        assert "took longer" in found.problem
        assert outcome.get(timeout=20) == 410
        assert endpoint.requests == []

    async def test_an_unknown_route_is_a_bug(self, endpoint: SimulatedEndpoint) -> None:
        async def answer(prompts: dict[str, str], example: dict[str, Any], client: openai.AsyncOpenAI) -> str:
            return str(await client.responses.create(model="task", input="Which?"))

        with pytest.raises(EvaluationError, match=r"POST /responses: here are POST /chat/completions, .*test_program"):
            await respond(answer, endpoint.base_url)

    async def test_the_client_of_a_plain_function_says_so_in_async_code(self, endpoint: SimulatedEndpoint) -> None:
        async def inner(example: dict[str, Any], client: openai.OpenAI) -> str:
            return str(client.chat.completions.create(model="task", messages=[{"role": "user", "content": "Hi"}]))

        with pytest.raises(
            EvaluationError, match="the client of a plain function, but the call is async; use async def"
        ):
            await respond(lambda prompts, example, client: inner(example, client), endpoint.base_url)


async def _ask_then(client: openai.AsyncOpenAI, error: BaseException) -> str:
    await asked(client, "Invoice. Which?")
    raise error


class TestFaults:
    """The rule for everything that a program can do wrong."""

    async def test_a_hanging_async_function_stays_unscored(self, endpoint: SimulatedEndpoint) -> None:
        async def answer(prompts: dict[str, str], example: dict[str, Any], client: openai.AsyncOpenAI) -> str:
            await asked(client, f"{prompts['prompt']}\n{example['text']}")
            await asyncio.sleep(60)
            return "billing"

        found = await respond(answer, program(endpoint.base_url, max_seconds=0.3))
        assert (found.answer, found.problem) == (None, "the program took longer than program.max_seconds (0.3 s)")
        assert found.usage.requests == 1

    @pytest.mark.parametrize("num_calls", [1, 3])
    async def test_the_program_s_own_time_stands_still_while_models_are_called(self, num_calls: int) -> None:
        loop, while_called, between = asyncio.get_running_loop(), list[float | None](), list[float | None]()

        def end() -> float | None:
            """When the program's time is over; ``None`` while it stands still."""
            limit = caller_named(current_example.get()).recorder.limit
            assert limit is not None
            return limit.when()

        class Model:
            async def forward(self, route: str, body: Mapping[str, Any]) -> Forwarded:
                while_called.append(end())
                await asyncio.sleep(0.01 * len(while_called))  # the calls end one after the other
                while_called.append(end())
                return Forwarded({"choices": [{"message": {"content": "billing"}}]}, Usage(requests=1))

        async def answer(prompts: dict[str, str], example: dict[str, Any], client: openai.AsyncOpenAI) -> str:
            between.append(end())
            await asyncio.gather(*(one_call(prompts, example, client) for _ in range(num_calls)))
            between.append(end())
            return await one_call(prompts, example, client)

        began = loop.time()
        found = await respond(answer, program({"own": OfferedModel(Model(), {})}, max_seconds=60))
        assert found.answer == "billing"
        assert while_called == [None] * 2 * (num_calls + 1)
        first, second = between
        assert first is not None
        assert second is not None
        assert began + 60 <= first < second <= loop.time() + 60

    async def test_a_hanging_plain_function_stays_unscored_and_its_later_calls_are_refused(
        self, endpoint: SimulatedEndpoint
    ) -> None:
        outcome: list[object] = []
        ended = threading.Event()

        def answer(prompts: dict[str, str], example: dict[str, Any], client: openai.OpenAI) -> str:
            ended.wait(20)
            try:
                client.chat.completions.create(model="task", messages=[{"role": "user", "content": "Late?"}])
            except openai.OpenAIError as error:
                outcome.append(error)
            return "billing"

        found = await respond(answer, program(endpoint.base_url, max_seconds=0.1))
        assert "took longer than program.max_seconds (0.1 s)" in found.problem
        ended.set()
        async with asyncio.timeout(60):
            while not outcome:  # noqa: ASYNC110  # the simplest
                await asyncio.sleep(0.01)
        assert "the program's work on this example has ended" in str(outcome[0])
        assert endpoint.requests == []

    @pytest.mark.parametrize("kind", [ValueError, RuntimeError, StopIteration, SystemExit])
    @pytest.mark.parametrize("is_async", [True, False])
    async def test_an_error_before_any_reply_is_a_bug(self, kind: type[BaseException], *, is_async: bool) -> None:
        async def answer_async(prompts: dict[str, str], example: dict[str, Any], client: Any) -> str:
            raise kind(3)

        def answer(prompts: dict[str, str], example: dict[str, Any], client: Any) -> str:
            raise kind(3)

        line = (answer_async if is_async else answer).__code__.co_firstlineno + 1
        pattern = rf"^the program own:answer failed: {kind.__name__}: 3 \({__file__}, line {line}\)$"
        with pytest.raises(EvaluationError, match=pattern):
            await respond(answer_async if is_async else answer, "http://127.0.0.1:9/v1")

    async def test_the_location_of_a_bug_is_in_the_program_not_in_a_library(self) -> None:
        async def answer(prompts: dict[str, str], example: dict[str, Any], client: Any) -> str:
            return str(json.loads("{"))

        line = answer.__code__.co_firstlineno + 1
        with pytest.raises(EvaluationError, match=rf"JSONDecodeError: .*\({__file__}, line {line}\)$"):
            await respond(answer, "http://127.0.0.1:9/v1")

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (ValueError("no JSON:\n{"), "ValueError: no JSON: {"),
            (KeyError("tool"), "KeyError: 'tool'"),
            (AnswerError("[plan] no query"), "AnswerError: [plan] no query"),
        ],
    )
    async def test_an_error_that_an_answer_can_cause_scores_0_with_its_reason(
        self, error: Exception, reason: str, endpoint: SimulatedEndpoint
    ) -> None:
        async def answer(prompts: dict[str, str], example: dict[str, Any], client: openai.AsyncOpenAI) -> str:
            return await _ask_then(client, error)

        found = await answered(answer, endpoint.base_url)
        assert (found.value, found.reason, found.problem) == (0.0, reason, "")
        assert found.flaws.unreadable == 1
        assert found.spending.task.requests == 1
        assert "The program failed: " in found.text

    async def test_an_answer_error_needs_no_reply(self) -> None:
        async def answer(prompts: dict[str, str], example: dict[str, Any], client: Any) -> str:
            raise AnswerError("empty")

        found = await answered(answer, "http://127.0.0.1:9/v1")
        assert (found.value, found.reason) == (0.0, "AnswerError: empty")

    @pytest.mark.parametrize("error", [NameError("a bug"), AssertionError("x"), asyncio.CancelledError("own")])
    async def test_any_other_error_after_a_reply_is_a_bug(
        self, error: BaseException, endpoint: SimulatedEndpoint
    ) -> None:
        async def answer(prompts: dict[str, str], example: dict[str, Any], client: openai.AsyncOpenAI) -> str:
            return await _ask_then(client, error)

        with pytest.raises(EvaluationError, match=f"the program own:answer failed: {type(error).__name__}: "):
            await respond(answer, endpoint.base_url)

    async def test_cancelling_the_evaluation_is_no_bug(self) -> None:
        async def answer(prompts: dict[str, str], example: dict[str, Any], client: Any) -> str:
            await asyncio.sleep(60)
            return ""

        task = asyncio.create_task(respond(answer, "http://127.0.0.1:9/v1"))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    @pytest.mark.parametrize("swallows", [False, True])
    async def test_an_endpoint_that_is_away_leaves_the_example_unscored(self, *, swallows: bool) -> None:
        async def answer(prompts: dict[str, str], example: dict[str, Any], client: openai.AsyncOpenAI) -> str:
            try:
                return await one_call(prompts, example, client)
            except openai.APIError:
                if not swallows:
                    raise
                return "billing"

        found = await answered(answer, "http://127.0.0.1:9/v1")
        assert found.value is None
        assert "task-model at http://127.0.0.1:9/v1" in found.problem
        assert not found.is_refused
        assert found.spending.task.failures == 1

    async def test_a_reply_that_reports_a_failure_is_no_answer(self) -> None:
        with SimulatedEndpoint(Behaviour(mode=Mode.FAILS_IN_THE_REPLY)) as endpoint:
            found = await answered(one_call, endpoint.base_url)
            assert (found.value, found.spending.task.retries) == (1.0, 1)
        with SimulatedEndpoint(Behaviour(mode=Mode.FAILS_WITH_200)) as endpoint:
            found = await answered(one_call, endpoint.base_url)
            assert found.value is None
            assert "out of memory" in found.problem

    async def test_a_refused_request_leaves_it_unscored(self, endpoint: SimulatedEndpoint) -> None:
        async def answer(prompts: dict[str, str], example: dict[str, Any], client: openai.AsyncOpenAI) -> str:
            return await asked(client, "Which?", temperature=9)

        found = await answered(answer, endpoint.base_url)
        assert (found.value, found.is_refused) == (None, True)
        assert "'temperature' must be a number from 0 to 2" in found.problem

    async def test_a_refusal_of_every_call_ends_the_run(self) -> None:
        with SimulatedEndpoint(Behaviour(api_key="another")) as endpoint, pytest.raises(ModelRefused, match="API key"):
            await answered(one_call, endpoint.base_url)

    async def test_a_used_up_budget_ends_the_run_to_the_call(self, endpoint: SimulatedEndpoint) -> None:
        limiter = LocalLimiter()
        await limiter.open_budget("run", Budget(calls=5), Spent())
        pool = Pool(endpoint.base_url, "task-model", 4, 4, budget_name="run", has_budget=True, has_call_budget=True)
        models = {"task-model": OfferedModel(remote(endpoint.base_url, gate=Gate(limiter, pool)), DEFAULTS)}
        made = program(models)

        async def answer(prompts: dict[str, str], example: dict[str, Any], client: openai.AsyncOpenAI) -> str:
            with contextlib.suppress(openai.OpenAIError):  # it cannot hide that there is no budget
                for _ in range(3):
                    await one_call(prompts, example, client)
            return "billing"

        assert (await respond(answer, made)).usage.requests == 3
        with pytest.raises(BudgetExhausted):
            await respond(answer, made)
        assert len(endpoint.requests) == 5

    @pytest.mark.parametrize("returned", [None, {"text": "billing"}, b"billing", Answer(None)])  # type: ignore[arg-type]
    async def test_what_is_no_answer_is_a_bug(self, returned: Any) -> None:
        kind = type(returned).__name__
        with pytest.raises(EvaluationError, match=f"own:answer returned an? {kind}, not a text or a gpo.Answer"):
            await respond(lambda *_: returned, "http://127.0.0.1:9/v1")

    async def test_a_megabyte_on_the_standard_output_changes_nothing(
        self, endpoint: SimulatedEndpoint, capfd: pytest.CaptureFixture[str]
    ) -> None:
        async def answer(prompts: dict[str, str], example: dict[str, Any], client: openai.AsyncOpenAI) -> str:
            print("x" * 1_000_000)
            sys.stderr.write("y" * 1_000_000)
            return await one_call(prompts, example, client)

        found = await respond(answer, endpoint.base_url)
        assert (found.answer, found.text) == ("billing", "[prompt] billing\nThe answer: billing")
        assert len(capfd.readouterr().out) == 1_000_001

    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    async def test_a_forked_child_answers_nothing(self) -> None:
        def answer(prompts: dict[str, str], example: dict[str, Any], client: Any) -> str:
            child = os.fork()
            if child == 0:
                return "child"
            deadline = time.monotonic() + 10
            while os.waitpid(child, os.WNOHANG) == (0, 0) and time.monotonic() < deadline:
                time.sleep(0.01)
            return "parent" if time.monotonic() < deadline else "the child did not end"

        assert (await respond(answer, "http://127.0.0.1:9/v1")).answer == "parent"
