"""The check before a run, against endpoints that answer unexpectedly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from benchmarks.simulated_endpoint import Behaviour, Mode, SimulatedEndpoint
from cluster.config import RunConfig, load_config
from cluster.session import preflight
from cluster.session.models import Access, build_tasks, chat_model
from cluster.session.preflight import Checked, check_models, explained_refusal
from gpo.data.task import Split
from gpo.errors import ConfigError, ModelRefused, RefusalReason
from gpo.limits.limiter import LocalLimiter
from gpo.scoring.adaptive import Adaptive
from tests.configs import CHECKED, merged, write_small_config
from tests.servers import serving

KEY = "sk-canary-5d1f0b\"'/"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@dataclass
class Replies:
    """An endpoint that gives every request the same reply."""

    body: bytes
    status: int = 200
    base_url: str = ""
    requests: list[Any] = field(default_factory=list)

    async def reply(self, request: web.Request) -> web.Response:
        self.requests.append(await request.json())
        return web.Response(body=self.body, status=self.status, content_type="text/plain")


@asynccontextmanager
async def replying(body: Any, status: int = 200) -> AsyncIterator[Replies]:
    replies = Replies(body if isinstance(body, bytes) else json.dumps(body).encode(), status)
    async with serving(replies.reply) as replies.base_url:
        yield replies


def small(folder: Path, base_url: str, **changes: Any) -> RunConfig:
    changes = {**changes, "models": merged(CHECKED, changes.get("models", {}))}
    return load_config(write_small_config(folder, base_url, **changes), [])


async def check(config: RunConfig) -> Checked:
    return await check_models(config, build_tasks(config))


def completion(text: str | None, finish_reason: str = "stop") -> dict[str, Any]:
    return {"choices": [{"message": {"content": text}, "finish_reason": finish_reason}]}


async def test_each_model_gets_one_call_with_the_run_s_parameters(endpoint: SimulatedEndpoint, tmp_path: Path) -> None:
    models = {"embedding": {"kind": "openai", "base_url": endpoint.base_url, "model": "embed-model"}}
    found = await check(small(tmp_path, endpoint.base_url, models=models))
    assert (found.warnings, found.refused) == ([], {})
    assert sorted(call.model for call in endpoint.requests) == ["embed-model", "opt-model", "task-model"]
    again = await check(small(tmp_path, endpoint.base_url))
    assert again.usage["task"].cached == 1
    assert [call.model for call in endpoint.requests[3:]] == ["opt-model"]


async def test_a_budget_that_is_not_open_yet_delays_no_call(endpoint: SimulatedEndpoint, tmp_path: Path) -> None:
    async with asyncio.timeout(10):
        found = await check(small(tmp_path, endpoint.base_url, budget={"calls": 9, "tokens": 9000}))
    assert found.warnings == []
    assert sorted(call.model for call in endpoint.requests) == ["opt-model", "task-model"]


@pytest.mark.parametrize("scoring", ["adaptive", "full"])
async def test_the_example_of_the_check_is_one_that_the_run_scores(tmp_path: Path, scoring: str) -> None:
    """The initial prompt answers only some of ``val``, and the reply would be wasted on another one."""
    async with replying(completion("billing")) as endpoint:
        config = small(tmp_path, endpoint.base_url, run={"seeds": [5]}, evaluation={"val_size": 40, "scoring": scoring})
        (task,) = build_tasks(config)
        await check(config)
        asked = [sent["messages"][-1]["content"] for sent in endpoint.requests if sent["model"] == "task-model"]
    made = config.evaluation.scoring.build(task.examples[Split.VAL], 0.0, seed=5)
    indices = made.initial_block if isinstance(made, Adaptive) else range(40)
    (index,) = [index for index, one in enumerate(task.examples[Split.VAL]) if one.input in asked[0]]
    assert index in indices


async def test_the_judge_grades_the_answer_of_the_task_model(endpoint: SimulatedEndpoint, tmp_path: Path) -> None:
    task = {"answer": {"kind": "judge", "rubric": "The label is right."}}
    found = await check(small(tmp_path, endpoint.base_url, tasks=[{"name": "first"}, task]))
    assert sorted(call.model for call in endpoint.requests) == ["opt-model", "opt-model", "task-model"]
    assert found.usage.keys() == found.kept.keys() == {"task", "judge"}


TWO_ROUNDS = {"kind": "label", "labels": ["billing", "technical", "shipping", "account"], "rounds": 2}


async def test_the_task_model_gets_a_call_for_each_form_of_conversation(tmp_path: Path) -> None:
    tasks: list[dict[str, Any]] = [
        {"name": "plain"},
        {"name": "again", "position": "question_end", "prompt": "Which desk?"},
        {"name": "rounds", "answer": TWO_ROUNDS},
        {"name": "system", "position": "system"},
        {"name": "shots", "shots": 2},
    ]
    async with replying(completion("billing")) as replies:
        found = await check(small(tmp_path, replies.base_url, tasks=tasks))
    roles = [[turn["role"] for turn in body["messages"]] for body in replies.requests if body["model"] == "task-model"]
    assert roles == [["user"], ["user", "assistant", "user"], ["system", "user"]]
    assert (found.kept["task"].requests, found.usage["task"].cached) == (3, 1)


async def test_a_system_message_that_only_a_later_task_has_is_tried(
    endpoint: SimulatedEndpoint, tmp_path: Path
) -> None:
    endpoint.behaviour = Behaviour(mode=Mode.NO_SYSTEM_ROLE, mode_of=("task-model",))
    config = small(tmp_path, endpoint.base_url, tasks=[{"name": "plain"}, {"name": "system", "position": "system"}])
    with pytest.raises(ConfigError) as caught:
        await check(config)
    assert "System role not supported" in caught.value.problem
    assert caught.value.remedy.startswith("set tasks[1].position to question_begin")


@pytest.mark.parametrize(
    ("body", "warnings"),
    [
        (completion(""), ("models.task", "is empty", "models.optimizer", "is empty")),
        (completion("", "length"), ("models.task.sampling.max_tokens", "raise models.optimizer.sampling.max_tokens")),
        (completion("<think>Well,", "length"), ("cut off at max_tokens", "raise models.optimizer.sampling.max_tokens")),
        (completion("a\n\nb"), ("models.optimizer", "no <START> … <END>")),
    ],
)
async def test_a_reply_that_the_run_could_not_use_is_a_warning(
    body: Any, warnings: tuple[str, ...], tmp_path: Path
) -> None:
    async with replying(body) as replies:
        found = await check(small(tmp_path, replies.base_url))
    said = "\n".join(found.warnings)
    assert not [words for words in warnings if words not in said], said


@pytest.mark.parametrize(
    ("status", "body", "field_", "words"),
    [
        (401, {"error": KEY}, "models.task.api_key_env", "refused the key in the environment variable"),
        (402, {"error": "Insufficient Balance"}, "models.task.api_key_env", "(HTTP 402: Insufficient Balance)"),
        (404, {"detail": "Not Found"}, "models.task.base_url", "is not the address of an API"),
        (404, {"error": "no endpoint under your data policy"}, "models.task.model", "under your data policy"),
        (400, {"error": "too long"}, "models.task", "(HTTP 400: too long); fix what the endpoint reports"),
        (422, {"detail": [{"loc": ["body", "messages"], "msg": "no"}]}, "models.task", "body.messages: no"),
        (500, {"error": {"message": KEY}}, "models.task.base_url", "answers HTTP 500"),
        (200, b" " * 20_000_000, "models.task", "larger than 8 MB"),
        (200, b"<html><title>Chat</title>", "models.task.base_url", "Chat"),
    ],
)
async def test_a_failed_call_names_the_option_and_repeats_the_endpoint_but_no_key(
    status: int, body: Any, field_: str, words: str, tmp_path: Path
) -> None:
    async with replying(body, status) as replies:
        with pytest.raises(ConfigError) as caught:
            await check(small(tmp_path, replies.base_url))
    assert caught.value.field == field_
    assert words in str(caught.value)
    assert "canary" not in str(caught.value)
    assert len(replies.requests) <= 2 * 4


async def test_a_refused_parameter_is_passed_on_to_the_run(
    endpoint: SimulatedEndpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint.behaviour = Behaviour(mode=Mode.REFUSES_SEED)
    config = small(tmp_path, endpoint.base_url)
    found = await check(config)
    assert found.refused == {("optimizer", endpoint.base_url, "opt-model"): frozenset({"seed"})}
    assert "opt-model does not accept seed" in caplog.text
    model = chat_model(config, "optimizer", Access({}, LocalLimiter(), "run", found.refused))
    await model.model.complete([{"role": "user", "content": "Hello."}], model.sampling.seeded(1))
    assert [call.status for call in endpoint.requests].count(422) == 1


async def test_a_filter_that_refuses_the_first_text_is_a_warning(tmp_path: Path) -> None:
    async with replying({"error": {"message": "flagged", "code": "content_filter"}}, 400) as replies:
        found = await check(small(tmp_path, replies.base_url))
    assert len(found.warnings) == 2
    assert all("(HTTP 400: flagged)" in warning for warning in found.warnings)


async def test_a_slow_model_is_named_and_not_waited_for(
    endpoint: SimulatedEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "_SAY_AFTER_S", 0.05)
    monkeypatch.setattr(preflight, "_LIMIT_S", 1.5)
    endpoint.behaviour = Behaviour(latency_s=30)
    said: list[str] = []
    config = small(tmp_path, endpoint.base_url, models={"optimizer": {"check": False}})
    found = await check_models(config, build_tasks(config), say=said.append)
    (warning,) = found.warnings
    assert f"models.task (task-model at {endpoint.base_url}) did not reply within" in warning
    assert len(said) >= 2
    assert said[0].startswith("Waiting for the first reply of models.task (task-model at ")


@pytest.mark.parametrize("reason", [reason for reason in RefusalReason if reason is not RefusalReason.REQUEST])
def test_a_refusal_during_the_run_names_option_cause_and_remedy(reason: RefusalReason, tmp_path: Path) -> None:
    config = small(tmp_path, "http://127.0.0.1:9")
    task = config.models.task
    message = "task-model at http://127.0.0.1:9: HTTP 400: SAID"
    error = explained_refusal(
        config,
        ModelRefused(message, reason, "task-model", "http://127.0.0.1:9", task.key.location),  # type: ignore[union-attr]
    )
    assert isinstance(error, ConfigError)
    assert error.field.startswith("models.task")
    assert "(HTTP 400: SAID)" in error.problem
    assert error.remedy


@pytest.mark.parametrize(
    ("settings", "field_"),
    [
        ({"api_key_command": ["no-such-program"]}, "models.task.api_key_command"),
        ({"headers": {"X-Tag": {"env": "NOT_SET"}}}, "models.task.headers.X-Tag"),
    ],
)
async def test_a_secret_that_cannot_be_read_names_its_option(
    settings: dict[str, Any], field_: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        await check(small(tmp_path, "http://127.0.0.1:9/v1", models={"task": settings}))
    assert caught.value.field == field_
