"""What a call to a language model costs the calling process: ``python -m benchmarks.client [--rounds N]``.

Time of the processor per call, 32 at a time, against the simulated endpoint in a process of its own: a client of bare
aiohttp, several ways to use the ``openai`` client, and our model client. They take turns in short rounds, so that
whatever else the machine does meets all of them alike; each round opens its connections anew, but is measured after
its first calls.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from time import process_time
from typing import Any

import aiohttp
import httpx2
import openai
import uvloop

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
    """A client of aiohttp alone."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=_AT_ONCE)) as session:

        async def call(number: int) -> None:
            async with session.post(f"{url}/chat/completions", json=_body(number)) as response:
                await response.json()

        yield call


def through(transport: Callable[[], httpx2.AsyncClient], ask: Callable[[openai.AsyncOpenAI, int], Any]) -> Variant:
    """The ``openai`` client on a transport, asked in one of its ways."""

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
    "ours": lambda: openai.DefaultAsyncHttpxClient(transport=AiohttpTransport(_AT_ONCE)),
}
_WAYS = {"`chat.completions.create`": _typed, "`with_raw_response`": _raw, "`post`": _post}
_VARIANTS: dict[tuple[str, str], Variant] = {
    ("aiohttp alone", "`session.post`"): bare,
    **{
        (f"openai on {transport}", way): through(factory, ask)
        for transport, factory in _TRANSPORTS.items()
        for way, ask in _WAYS.items()
    },
    ("gpo", "`RetryingModel.complete`"): ours,
}
_LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


async def _round(variant: Variant, url: str, num_calls: int) -> float:
    """Milliseconds of the processor per call, in one round."""
    async with variant(url) as call:
        numbers = iter(range(num_calls + _AT_ONCE))

        async def work(count: int) -> None:
            for _ in range(count):
                await call(next(numbers))

        await asyncio.gather(*(work(1) for _ in range(_AT_ONCE)))
        gc.collect()  # what the client before has left
        started = process_time()
        await asyncio.gather(*(work(num_calls // _AT_ONCE) for _ in range(_AT_ONCE)))
        return (process_time() - started) / (num_calls // _AT_ONCE * _AT_ONCE) * 1e3


@contextmanager
def _endpoint(latency_ms: float) -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.simulated_endpoint", "--port", "0", "--latency-ms", str(latency_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None  # noqa: S101
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table; 0 when it is complete."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.client", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--calls", type=int, default=320, help="of each client in a round")
    parser.add_argument("--latency-ms", type=float, default=50.0)
    settings = parser.parse_args(arguments)
    costs: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    with _endpoint(settings.latency_ms) as url:
        for _ in range(settings.rounds):
            for (client, way), variant in _VARIANTS.items():
                for loop, new_loop in _LOOPS.items():
                    with asyncio.Runner(loop_factory=new_loop) as runner:
                        costs[client, way, loop].append(runner.run(_round(variant, url, settings.calls)))
    floor = costs["aiohttp alone", "`session.post`", "asyncio"]
    print("| Client | Asked by | Loop | ms a call | times aiohttp alone |\n|---|---|---|---:|---:|")
    for (client, way, loop), cost in costs.items():
        ratio = statistics.median(spent / least for spent, least in zip(cost, floor, strict=True))
        print(f"| {client} | {way} | {loop} | {statistics.median(cost):.2f} | {ratio:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
