from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import openai
import pytest

from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from gpo.evaluation.answer_format import Position
from gpo.strategies.meta_prompt import Brief, FullMetaPrompt
from gpo.testing.samples import candidate
from gpo.trajectory import Direction
from tests.paths import ROOT

INITIAL = "Classify the support ticket into one of: billing, technical, shipping, account."
GOOD = "Read carefully and classify the customer ticket: answer with exactly one category label, a single word only."
TICKET = "Hello, my invoice has been bothering me since Monday, so what should I do now?"
META_PROMPT = FullMetaPrompt().messages(Brief(candidate(INITIAL, 0.3), Direction(), None, (), Position.QUESTION_BEGIN))


@pytest.fixture
def endpoint() -> Iterator[SimulatedEndpoint]:
    with SimulatedEndpoint() as running:
        yield running


def client(endpoint: SimulatedEndpoint, key: str = "any") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=endpoint.base_url, api_key=key, max_retries=0, timeout=10)


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


async def ask(endpoint: SimulatedEndpoint, text: str, model: str = "task-model", **settings: Any) -> Any:
    async with client(endpoint) as api:
        return await api.chat.completions.create(model=model, messages=user(text), **settings)


async def test_the_optimizer_model_follows_seed_temperature_and_limits(endpoint: SimulatedEndpoint) -> None:
    text = META_PROMPT[0]["content"]

    async def reply(**settings: Any) -> Any:
        return (await ask(endpoint, text, "opt-model", **settings)).choices[0]

    first, again, other = [(await reply(seed=seed, temperature=1.0)).message.content for seed in (1, 1, 2)]
    assert first == again != other
    assert first.startswith("<START>")
    assert first.endswith("<END>")
    cold = [(await reply(seed=seed, temperature=0)).message.content for seed in (1, 2)]
    assert cold[0] == cold[1]
    stopped = await reply(seed=1, stop=["<END>"])
    assert (stopped.message.content + "<END>", stopped.finish_reason) == (first, "stop")
    short = await reply(seed=1, max_tokens=3)
    assert (short.message.content, short.finish_reason) == (" ".join(first.split()[:3]), "length")
    several = await ask(endpoint, text, "opt-model", n=4, temperature=1.0)
    assert len({choice.message.content for choice in several.choices}) > 1
    endpoint.behaviour = Behaviour(malformed_rate=1.0)
    malformed = [(await reply(seed=seed)).message.content for seed in range(8)]
    assert "" in malformed
    assert not any("<START>" in text for text in malformed)


async def test_a_reply_that_names_a_tool_is_a_call_and_is_followed_by_the_answer(endpoint: SimulatedEndpoint) -> None:
    tools: list[Any] = [{"type": "function", "function": {"name": name}} for name in ("billing", "other")]
    first = (await ask(endpoint, f"{GOOD}\n{TICKET}", tools=tools)).choices[0]
    assert (first.finish_reason, first.message.content) == ("tool_calls", None)
    (call,) = first.message.tool_calls
    assert (call.function.name, call.function.arguments) == ("billing", "{}")
    said = {"role": "tool", "tool_call_id": call.id, "content": "We see to money."}
    messages = [*user(f"{GOOD}\n{TICKET}"), first.message.model_dump(exclude_none=True), said]
    async with client(endpoint) as api:
        last = (await api.chat.completions.create(model="task-model", messages=messages, tools=tools)).choices[0]
    assert (last.finish_reason, last.message.content) == ("stop", "billing")
    with pytest.raises(openai.BadRequestError, match="'tools' must be a list of functions"):
        await ask(endpoint, TICKET, tools=[{"type": "function"}])


async def test_a_repeated_request_without_a_seed_gets_a_new_reply(endpoint: SimulatedEndpoint) -> None:
    async def replies(**settings: Any) -> list[str]:
        text = META_PROMPT[0]["content"]
        return [(await ask(endpoint, text, "opt-model", **settings)).choices[0].message.content for _ in range(4)]

    assert len(set(await replies(temperature=1.0))) == 4
    assert len(set(await replies(temperature=1.0, seed=1))) == 1
    assert len(set(await replies(temperature=0.0))) == 1


async def test_wrong_keys_unknown_models_and_malformed_bodies_are_refused() -> None:
    with SimulatedEndpoint(Behaviour(api_key="right")) as endpoint:
        async with client(endpoint, "wrong") as api:
            with pytest.raises(openai.AuthenticationError) as wrong:
                await api.models.list()
        assert wrong.value.code == "invalid_api_key"
        async with client(endpoint, "right") as api:
            await api.models.list()
            with pytest.raises(openai.NotFoundError) as unknown:
                await api.chat.completions.create(model="other", messages=user("hi"))
            assert (unknown.value.code, unknown.value.type) == ("model_not_found", "invalid_request_error")
            malformed: list[dict[str, Any]] = [
                {"messages": []},
                {"messages": user("hi"), "n": 0},
                {"messages": user("hi"), "max_tokens": 0},
                {"messages": user("hi"), "temperature": 3},
                {"messages": [{"role": "wizard", "content": "hi"}]},
                {"messages": [{"role": ["user"], "content": "hi"}]},
                {"messages": ["hi"]},
                {"messages": [{"role": "user", "content": 7}]},
            ]
            for body in malformed:
                with pytest.raises(openai.BadRequestError):
                    await api.chat.completions.create(model="task-model", **body)
            with pytest.raises(openai.NotFoundError):
                await api.post("/elsewhere", cast_to=object)
        assert "right" not in repr(endpoint.behaviour)
        assert [record.status for record in endpoint.requests] == [401, 200, 404, *[400] * len(malformed), 404]


async def test_a_hanging_request_ends_when_its_client_disconnects() -> None:
    with SimulatedEndpoint(Behaviour(hang_rate=1.0, limit=1)) as endpoint:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask(endpoint, TICKET), 1.0)
        endpoint.behaviour = Behaviour(limit=1)
        for _ in range(100):
            if endpoint.requests:
                break
            await asyncio.sleep(0.02)
        await ask(endpoint, TICKET)
        assert [record.status for record in endpoint.requests] == [499, 200]


async def test_access_log_holds_the_records(tmp_path: Path) -> None:
    log = tmp_path / "access.jsonl"
    with SimulatedEndpoint(access_log=log) as endpoint:
        await ask(endpoint, TICKET, temperature=0)
        await ask(endpoint, TICKET, temperature=0)
        await ask(endpoint, TICKET, temperature=1)
    assert [json.loads(line) for line in log.read_text("utf-8").splitlines()] == list(map(asdict, endpoint.requests))
    same, again, other = (record.content for record in endpoint.requests)
    assert same == again != other
    assert all(record.started_s <= record.finished_s for record in endpoint.requests)
    assert (endpoint.requests[0].path, endpoint.requests[0].model) == ("/v1/chat/completions", "task-model")


def test_the_process_runs_until_sigterm(tmp_path: Path) -> None:
    log = tmp_path / "access.jsonl"
    command = [sys.executable, "-m", "benchmarks.simulated_endpoint", "--port", "0"]
    options = ["--api-key-env", "SIMULATED_KEY", "--access-log", str(log), "--no-models"]
    environment = {**os.environ, "SIMULATED_KEY": "right"}
    with subprocess.Popen(
        [*command, *options], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        announced = process.stdout.readline()
        assert announced.startswith("listening on http://127.0.0.1:")
        with openai.OpenAI(base_url=announced.split()[-1], api_key="right", max_retries=0) as api:
            api.chat.completions.create(model="task-model", messages=user(TICKET))
            with pytest.raises(openai.NotFoundError):
                api.models.list()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    assert [json.loads(line)["status"] for line in log.read_text("utf-8").splitlines()] == [200, 404]
