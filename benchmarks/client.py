"""CPU time of a model call in the calling process: ``python -m benchmarks.client [--rounds N]``.

Compares plain aiohttp, several ways to use the ``openai`` client, and our model client, with 32 concurrent calls to the
simulated endpoint. The clients take turns in short rounds, so that other load on the machine affects all of them
equally. Each round opens new connections and is measured after its first calls.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from time import process_time
from typing import Any

import aiohttp
import httpx2
import openai
import uvloop

from benchmarks.measuring.servers import EndpointProcess
from gpo.models.endpoint import Endpoint
from gpo.models.openai import openai_model
from gpo.models.protocol import Message, Sampling
from gpo.models.transport import AiohttpTransport

Call = Callable[[int], Awaitable[None]]
Variant = Callable[[str], AbstractAsyncContextManager[Call]]

_MODEL, _AT_ONCE, _MAX_TOKENS = "task-model", 32, 64
_QUESTION = "Decide what the customer wants and answer with one label.\n" + "Where is the parcel that I ordered? " * 15


def _messages(number: int) -> list[Message]:
    return [{"role": "user", "content": f"{_QUESTION}\n{number}"}]


def _body(number: int) -> dict[str, Any]:
    return {"model": _MODEL, "messages": _messages(number), "temperature": 0.0, "max_tokens": _MAX_TOKENS}


@asynccontextmanager
async def bare(url: str) -> AsyncIterator[Call]:
    """A client on plain aiohttp."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=_AT_ONCE)) as session:

        async def call(number: int) -> None:
            async with session.post(f"{url}/chat/completions", json=_body(number)) as response:
                await response.json()

        yield call


def through(transport: Callable[[], httpx2.AsyncClient], ask: Callable[[openai.AsyncOpenAI, int], Any]) -> Variant:
    """The ``openai`` client on a transport, called in one of several ways."""

    @asynccontextmanager
    async def variant(url: str) -> AsyncIterator[Call]:
        async with openai.AsyncOpenAI(base_url=url, api_key="no-key", max_retries=0, http_client=transport()) as client:

            async def call(number: int) -> None:
                await ask(client, number)

            yield call

    return variant


def _typed(client: openai.AsyncOpenAI, number: int) -> Any:
    return client.chat.completions.create(**_body(number))


def _raw(client: openai.AsyncOpenAI, number: int) -> Any:
    return client.chat.completions.with_raw_response.create(**_body(number))


def _post(client: openai.AsyncOpenAI, number: int) -> Any:
    return client.post("/chat/completions", cast_to=httpx2.Response, body=_body(number))


@asynccontextmanager
async def ours(url: str) -> AsyncIterator[Call]:
    """Our model client."""
    endpoint = Endpoint(url, _MODEL, max_concurrency=_AT_ONCE)
    model = openai_model(endpoint)
    async with endpoint.client:

        async def call(number: int) -> None:
            await model.complete(_messages(number), Sampling(0.0, _MAX_TOKENS))

        yield call


_LIMITS = httpx2.Limits(max_connections=_AT_ONCE, max_keepalive_connections=_AT_ONCE)
_TRANSPORTS: dict[str, Callable[[], httpx2.AsyncClient]] = {
    "httpx2": lambda: openai.DefaultAsyncHttpxClient(limits=_LIMITS),
    "its aiohttp": lambda: openai.DefaultAioHttpClient(limits=_LIMITS),
    "ours": lambda: openai.DefaultAsyncHttpxClient(transport=AiohttpTransport(_AT_ONCE, httpx2.create_ssl_context())),
}
_WAYS = {"`chat.completions.create`": _typed, "`with_raw_response`": _raw, "`post`": _post}
_VARIANTS: dict[tuple[str, str], Variant] = {
    ("plain aiohttp", "`session.post`"): bare,
    **{
        (f"openai on {transport}", way): through(factory, ask)
        for transport, factory in _TRANSPORTS.items()
        for way, ask in _WAYS.items()
    },
    ("gpo", "`RetryingModel.complete`"): ours,
}
_LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


async def _round(variant: Variant, url: str, num_calls: int) -> float:
    """CPU milliseconds per call in one round."""
    async with variant(url) as call:
        numbers = iter(range(num_calls + _AT_ONCE))

        async def work(count: int) -> None:
            for _ in range(count):
                await call(next(numbers))

        await asyncio.gather(*(work(1) for _ in range(_AT_ONCE)))
        gc.collect()  # garbage of the previous client
        started = process_time()
        await asyncio.gather(*(work(num_calls // _AT_ONCE) for _ in range(_AT_ONCE)))
        return (process_time() - started) / (num_calls // _AT_ONCE * _AT_ONCE) * 1e3


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.client", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--calls", type=int, default=320, help="calls of each client in a round")
    parser.add_argument("--latency-ms", type=float, default=50.0)
    settings = parser.parse_args(arguments)
    costs: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    with (
        tempfile.TemporaryDirectory() as folder,
        EndpointProcess(Path(folder) / "access.jsonl", "--latency-ms", settings.latency_ms) as endpoint,
    ):
        for _ in range(settings.rounds):
            for (client, way), variant in _VARIANTS.items():
                for loop, new_loop in _LOOPS.items():
                    with asyncio.Runner(loop_factory=new_loop) as runner:
                        costs[client, way, loop].append(runner.run(_round(variant, endpoint.base_url, settings.calls)))
    floor = costs["plain aiohttp", "`session.post`", "asyncio"]
    print("| Client | Called by | Loop | CPU ms a call | times plain aiohttp |\n|---|---|---|---:|---:|")
    for (client, way, loop), cost in costs.items():
        ratio = statistics.median(spent / least for spent, least in zip(cost, floor, strict=True))
        print(f"| {client} | {way} | {loop} | {statistics.median(cost):.2f} | {ratio:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
