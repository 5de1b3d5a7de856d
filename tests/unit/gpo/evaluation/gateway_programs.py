"""Programs whose frameworks have clients of their own, for the tests of the gateway."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from typing import Any

import aiohttp
import httpx2
import openai

# As frameworks do: the client exists before any program runs, and knows the variables alone.
SYNC, ASYNC = openai.OpenAI(max_retries=2), openai.AsyncOpenAI(max_retries=2)

Prompts, Row = Mapping[str, str], Mapping[str, Any]


def _messages(prompts: Prompts, row: Row) -> list[Any]:
    return [{"role": "user", "content": f"{prompts['prompt']}\n{row['question']}"}]


def _request(prompts: Prompts, row: Row) -> tuple[str, dict[str, Any], dict[str, str]]:
    key = os.environ["OPENAI_API_KEY"]
    url = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
    return url, {"model": "task", "messages": _messages(prompts, row)}, {"Authorization": f"Bearer {key}"}


def _text(body: Any) -> str:
    return str(body["choices"][0]["message"]["content"])


def with_openai(prompts: Prompts, row: Row, client: openai.OpenAI) -> str:
    reply = SYNC.chat.completions.create(model="task", messages=_messages(prompts, row))
    return reply.choices[0].message.content or ""


async def with_async_openai(prompts: Prompts, row: Row, client: openai.AsyncOpenAI) -> str:
    reply = await ASYNC.chat.completions.create(model="task", messages=_messages(prompts, row))
    return reply.choices[0].message.content or ""


async def streaming(prompts: Prompts, row: Row, client: openai.AsyncOpenAI) -> str:
    stream = await ASYNC.chat.completions.create(model="task", messages=_messages(prompts, row), stream=True)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


async def with_the_client_s_address(prompts: Prompts, row: Row, client: openai.AsyncOpenAI) -> str:
    async with httpx2.AsyncClient(trust_env=False) as http:
        url, body, _ = _request(prompts, row)
        assert url.startswith(str(client.base_url))
        reply = await http.post(url, json=body, headers={"Authorization": f"Bearer {client.api_key}"})
    return _text(reply.json())


async def with_the_client(prompts: Prompts, row: Row, client: openai.AsyncOpenAI) -> str:
    reply = await client.chat.completions.create(model="task", messages=_messages(prompts, row))
    return reply.choices[0].message.content or ""


def with_urllib(prompts: Prompts, row: Row, client: openai.OpenAI) -> str:
    url, body, headers = _request(prompts, row)
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310
    with urllib.request.urlopen(request) as reply:  # noqa: S310
        return _text(json.load(reply))


async def with_aiohttp(prompts: Prompts, row: Row, client: openai.AsyncOpenAI) -> str:
    url, body, headers = _request(prompts, row)
    async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=headers) as reply:
        return _text(await reply.json())


def in_event_loops_of_its_own(prompts: Prompts, row: Row, client: openai.OpenAI) -> str:
    return "".join(asyncio.run(with_async_openai(prompts, row, None)) for _ in range(2))  # type: ignore[arg-type]


def in_threads_at_once(prompts: Prompts, row: Row, client: openai.OpenAI) -> str:
    def in_a_loop() -> str:
        return asyncio.run(swallowing(prompts, row, None))  # type: ignore[arg-type]

    def without_a_loop() -> str:
        try:
            return with_openai(prompts, row, client)
        except openai.APIError:
            return "I gave up"

    with ThreadPoolExecutor(8) as pool:
        given = [pool.submit(copy_context().run, work) for work in (in_a_loop, without_a_loop) * 4]
        return " ".join({one.result() for one in given})


def reading_as_it_comes(prompts: Prompts, row: Row, client: openai.OpenAI) -> str:
    url, body, headers = _request(prompts, row)
    with httpx2.Client() as http, http.stream("POST", url, json=body, headers=headers) as reply:
        text = _text(json.loads(b"".join(reply.iter_raw())))
    assert reply.elapsed.total_seconds() > 0
    given = client.chat.completions.with_raw_response.create(model="task", messages=_messages(prompts, row))
    assert given.elapsed.total_seconds() > 0
    return text


async def reading_as_it_comes_async(prompts: Prompts, row: Row, client: openai.AsyncOpenAI) -> str:
    url, body, headers = _request(prompts, row)
    async with httpx2.AsyncClient() as http, http.stream("POST", url, json=body, headers=headers) as reply:
        text = _text(json.loads(b"".join([part async for part in reply.aiter_raw()])))
    assert reply.elapsed.total_seconds() > 0
    given = await client.chat.completions.with_raw_response.create(model="task", messages=_messages(prompts, row))
    assert given.elapsed.total_seconds() > 0
    return text


def too_large(prompts: Prompts, row: Row, client: openai.OpenAI) -> str:
    url, _, headers = _request(prompts, row)
    with httpx2.Client() as http:
        return str(http.post(url, content=row["question"], headers=headers).status_code)


def in_forked_children(prompts: Prompts, row: Row, client: openai.OpenAI) -> str:
    """Children that ask at once, with clients that were used before; answers how many of them got their own replies.

    The model must repeat what it is asked.
    """
    ways = (with_openai, with_urllib, in_event_loops_of_its_own)
    for way in ways[:2]:
        way(prompts, row, client)

    def are_own_replies(name: str) -> bool:
        signal.alarm(100)  # a child that waits for nothing does not stay
        asked = [{"question": f"{name}, {number}"} for number in range(5)]
        replies = [[way(prompts, one, client) for one in asked] for way in ways]
        texts = [_messages(prompts, one)[0]["content"] for one in asked]
        return replies == [texts, texts, [2 * text for text in texts]]

    children = []
    for number in range(3):
        if not (child := os.fork()):
            with suppress(BaseException):
                os._exit(0 if are_own_replies(str(number)) else 1)
            os._exit(2)
        children.append(child)
    return str([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children].count(0))


def in_a_thread_without_context(prompts: Prompts, row: Row, client: openai.OpenAI) -> str:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(with_openai, prompts, row, client).result()


def swallowing_in_a_thread(prompts: Prompts, row: Row, client: openai.OpenAI) -> str:
    def work() -> None:
        with suppress(openai.APIError):
            with_openai(prompts, row, client)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()
    return "I gave up"


async def swallowing(prompts: Prompts, row: Row, client: openai.AsyncOpenAI) -> str:
    try:
        return await with_async_openai(prompts, row, client)
    except openai.APIError:
        return "I gave up"


async def two_calls(prompts: Prompts, row: Row, client: openai.AsyncOpenAI) -> str:
    return await swallowing(prompts, row, client) + await swallowing(prompts, {"question": "Why?"}, client)


async def blocking(prompts: Prompts, row: Row, client: openai.AsyncOpenAI) -> str:
    return with_openai(prompts, row, None)  # type: ignore[arg-type]


async def calling_a_tool(prompts: Prompts, row: Row, client: openai.AsyncOpenAI) -> str:
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
    streams = row["question"] == "in a stream"
    reply: Any = await ASYNC.chat.completions.create(
        model="task",
        messages=_messages(prompts, row),
        tools=[tool],  # type: ignore[list-item]
        stream=streams,  # type: ignore[call-overload]
    )
    message = (await anext(reply)).choices[0].delta if streams else reply.choices[0].message
    (call,) = message.tool_calls
    return f"{call.function.name}{call.function.arguments}"


async def embedding(prompts: Prompts, row: Row, client: openai.AsyncOpenAI) -> str:
    reply = await ASYNC.embeddings.create(model="embed-model", input=[row["question"]])
    return str(len(reply.data[0].embedding))


async def listing(prompts: Prompts, row: Row, client: openai.AsyncOpenAI) -> str:
    own = [model.id async for model in client.models.list()]
    assert own == [model.id async for model in ASYNC.models.list()]
    return " ".join(own)


LATE: list[Any] = []


async def leaving_its_key(prompts: Prompts, row: Row, client: openai.AsyncOpenAI) -> str:
    LATE.append(client.api_key)
    return await with_async_openai(prompts, row, client)
