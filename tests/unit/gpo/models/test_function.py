from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from threading import Barrier
from typing import Any

import pytest

from gpo.errors import EvaluationError, ModelRefused, ModelUnavailable, RefusalReason
from gpo.models.function import FunctionModel
from gpo.models.protocol import Message, Sampling, Usage
from gpo.user_code.functions import FunctionReference, passed_functions

MESSAGES: list[Message] = [{"role": "user", "content": "2 + 2?"}]
SAMPLING = Sampling(temperature=0.0, max_tokens=5, stop=("\n",), seed=3, extra={"min_p": 0.1})


class StatusError(Exception):
    def __init__(self, status_code: int) -> None:
        super().__init__(f"status {status_code}")
        self.status_code = status_code


class ResponseError(Exception):
    """As ``httpx`` and ``requests`` raise it."""

    def __init__(self, response: object) -> None:
        super().__init__("a reply with an error")
        self.response = response


class APIConnectionError(Exception):
    """As clients of language models name it."""


async def replied(function: Callable[..., Any], sampling: Sampling = SAMPLING, timeout_s: float = 5.0) -> str:
    model = FunctionModel(FunctionReference("__main__", "ask"), timeout_s)
    with passed_functions({"__main__:ask": function}):
        reply = await model.complete(MESSAGES, sampling)
    assert reply.usage == Usage(requests=1)
    return reply.text


async def test_the_function_gets_the_settings_that_it_takes() -> None:
    async def everything(messages: Any, **sampling: Any) -> str:
        return repr((messages, sampling))

    async def one(messages: Any, seed: int | None = None) -> str:
        return repr(seed)

    settings = {"temperature": 0.0, "max_tokens": 5, "stop": ["\n"], "seed": 3, "min_p": 0.1}
    assert await replied(everything) == repr((MESSAGES, settings))
    assert await replied(everything, Sampling()) == repr((MESSAGES, {}))
    assert await replied(one) == "3"


async def test_a_plain_function_runs_in_a_thread() -> None:
    together = Barrier(4)

    def slow(messages: Any) -> str:
        together.wait(60)  # passes only if all four run at the same time
        return "4"

    assert await asyncio.gather(*(replied(slow) for _ in range(4))) == ["4"] * 4


class Client:
    async def __call__(self, messages: Any) -> str:
        return "from an object"


async def test_an_object_and_a_function_that_returns_a_coroutine_can_be_called() -> None:
    assert await replied(Client()) == "from an object"
    assert await replied(lambda messages: Client()(messages)) == "from an object"


@pytest.mark.parametrize(
    ("raised", "expected", "attributes"),
    [
        (ConnectionResetError("gone"), ModelUnavailable, {"too_many": False}),
        (TimeoutError("slow"), ModelUnavailable, {"too_many": False}),
        (APIConnectionError("no route"), ModelUnavailable, {}),
        (StatusError(429), ModelUnavailable, {"too_many": True}),
        (StatusError(503), ModelUnavailable, {"too_many": False}),
        (ResponseError(StatusError(429)), ModelUnavailable, {"too_many": True}),
        (StatusError(400), ModelRefused, {"reason": RefusalReason.REQUEST}),
        (StatusError(401), ModelRefused, {"reason": RefusalReason.KEY}),
        (StatusError(404), ModelRefused, {"reason": RefusalReason.MODEL}),
        (ValueError("a bug"), EvaluationError, {}),
        (KeyError("content"), EvaluationError, {}),
        (asyncio.CancelledError("of a task that it awaited"), EvaluationError, {}),
    ],
)
async def test_errors_are_transient_refusals_or_faults(
    raised: BaseException, expected: type[Exception], attributes: dict[str, Any]
) -> None:
    async def ask(messages: Any) -> str:
        raise raised

    with pytest.raises(expected) as found:
        await replied(ask)
    assert {name: getattr(found.value, name) for name in attributes} == attributes
    assert type(raised).__name__ in str(found.value)
    assert f"{__file__}, line" in str(found.value)


async def test_a_call_that_takes_too_long_is_a_transient_failure() -> None:
    async def ask(messages: Any) -> str:
        await asyncio.sleep(60)
        return ""

    with pytest.raises(ModelUnavailable, match="TimeoutError"):
        await replied(ask, timeout_s=0.05)


@pytest.mark.parametrize("value", [None, 4, b"4", {"content": "4"}])
async def test_another_value_than_a_text_is_a_fault(value: object) -> None:
    async def ask(messages: Any) -> object:
        return value

    with pytest.raises(EvaluationError, match=rf"returned a {type(value).__name__}, not a text"):
        await replied(ask)


async def test_the_messages_are_the_function_s_own() -> None:
    async def ask(messages: Any) -> str:
        messages[0]["content"] = "changed"
        return ""

    await replied(ask)
    assert MESSAGES[0]["content"] == "2 + 2?"


async def test_it_pickles_and_embeds_nothing() -> None:
    model = FunctionModel(FunctionReference("module", "ask", ("/folder",)), 5.0)
    assert pickle.loads(pickle.dumps(model)) == model  # noqa: S301
    with pytest.raises(EvaluationError, match="cannot embed texts"):
        await model.embed_batch(["a"])
