"""Cost of the gateway that programs reach over HTTP: ``python -m benchmarks.gateway [--rounds N]``.

A program answers each example with two calls, one after the other, 32 calls at once. The ways to call take turns in
short rounds, so that other load on the machine affects all of them equally. *Busy* is the time that the endpoint needs
for all calls at 32 at once, as a share of the time that the round took, its start and end included.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import aiohttp
import openai

from benchmarks.measuring.servers import EndpointProcess
from gpo.data.example import Example
from gpo.evaluation.gateway import process_gateway
from gpo.evaluation.program import Program, ProgramSpec
from gpo.evaluation.program_calls import OfferedModel
from gpo.models.endpoint import Endpoint
from gpo.models.openai import openai_model
from gpo.models.protocol import ForwardingModel
from gpo.prompt import Prompt
from gpo.runtime.concurrency import gather
from gpo.user_code.functions import FunctionReference

_MODEL, _AT_ONCE = "task-model", 32
_QUESTION = "Where is the parcel that I ordered? " * 15
_PROMPT = Prompt("Decide what the customer wants and answer with one label.")


def _body(prompts: Mapping[str, str], text: str) -> dict[str, Any]:
    messages = [{"role": "system", "content": prompts["prompt"]}, {"role": "user", "content": text}]
    return {"model": _MODEL, "messages": messages, "temperature": 0.0, "max_tokens": 64}


Ask = Callable[[dict[str, Any]], Awaitable[str]]


class Clients:
    """The clients of one round, and the way that its program takes. A program is known by name alone."""

    ask: Ask

    def __init__(self, endpoint: str, model: ForwardingModel) -> None:
        self._endpoint, self._model = endpoint, model

    async def __aenter__(self) -> Clients:
        gateway = process_gateway()
        self._openai = {
            url: openai.AsyncOpenAI(base_url=url, api_key=gateway.key()) for url in (self._endpoint, gateway.url)
        }
        headers = {"Authorization": f"Bearer {gateway.key()}"}
        self._aiohttp = aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0))
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._aiohttp.close()
        for client in self._openai.values():
            await client.close()

    async def without_a_client(self, body: dict[str, Any]) -> str:
        return _text((await self._model.forward("/chat/completions", body)).body)

    async def openai_straight(self, body: dict[str, Any]) -> str:
        return await _created(self._openai[self._endpoint], body)

    async def openai_by_gateway(self, body: dict[str, Any]) -> str:
        return await _created(self._openai[process_gateway().url], body)

    async def aiohttp_straight(self, body: dict[str, Any]) -> str:
        return await self._posted(self._endpoint, body)

    async def aiohttp_by_gateway(self, body: dict[str, Any]) -> str:
        return await self._posted(process_gateway().url, body)

    async def _posted(self, url: str, body: dict[str, Any]) -> str:
        async with self._aiohttp.post(f"{url}/chat/completions", json=body) as reply:
            return _text(await reply.json())


async def _created(client: openai.AsyncOpenAI, body: dict[str, Any]) -> str:
    return (await client.chat.completions.create(**body)).choices[0].message.content or ""


def _text(body: Mapping[str, Any]) -> str:
    return str(body["choices"][0]["message"]["content"])


async def two_calls(prompts: Mapping[str, str], example: Mapping[str, Any], client: openai.AsyncOpenAI) -> str:
    """The program."""
    ask = Clients.ask if hasattr(Clients, "ask") else partial(_created, client)
    first = await ask(_body(prompts, example["text"]))
    return await ask(_body(prompts, f"{example['text']}\n{first}"))


WAYS = {
    "our model alone": "without_a_client",
    "the program's `openai` client": "",
    "an `openai` client, straight": "openai_straight",
    "an `openai` client, by the gateway": "openai_by_gateway",
    "`aiohttp`, straight": "aiohttp_straight",
    "`aiohttp`, by the gateway": "aiohttp_by_gateway",
}


async def _round(way: str, url: str, num_examples: int) -> tuple[float, float]:
    """CPU milliseconds a call, and seconds, of one round."""
    model = openai_model(Endpoint(url, _MODEL, max_concurrency=_AT_ONCE))
    spec = ProgramSpec(FunctionReference("benchmarks.gateway", "two_calls"), gateway=way.endswith("by_gateway"))
    program = Program(spec, {_MODEL: OfferedModel(model, {})})

    async def answered(number: int) -> None:
        text = f"{_QUESTION}\n{number}"
        await program.respond(_PROMPT, Example(text, ("",), row={"text": text}))

    async def all_answered(numbers: range) -> None:
        if "straight" not in way:
            await gather(map(answered, numbers))
            return
        slots = asyncio.Semaphore(_AT_ONCE)  # no other limit is there

        async def in_turn(number: int) -> None:
            async with slots:
                await answered(number)

        await gather(map(in_turn, numbers))

    async with Clients(url, model) as clients:
        if way:
            _program_clients().ask = getattr(clients, way)
        try:
            await all_answered(range(-_AT_ONCE, 0))
            gc.collect()
            cpu, began = process_time(), perf_counter()
            await all_answered(range(num_examples))
            spent, took = process_time() - cpu, perf_counter() - began
        finally:
            if way:
                del _program_clients().ask
    return spent / (2 * num_examples) * 1e3, took


def _program_clients() -> Any:
    """The class as the program sees it, which imports this file under its own name."""
    return import_module("benchmarks.gateway").Clients


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--examples", type=int, default=320, help="examples in a round; each needs two calls")
    parser.add_argument("--latency-ms", type=float, default=200.0)
    settings = parser.parse_args(arguments)
    rounds: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with (
        tempfile.TemporaryDirectory() as folder,
        EndpointProcess(Path(folder) / "access.jsonl", "--latency-ms", settings.latency_ms) as endpoint,
    ):
        for _ in range(settings.rounds):
            for way in WAYS.values():
                rounds[way].append(asyncio.run(_round(way, endpoint.base_url, settings.examples)))
    needed = 2 * settings.examples * settings.latency_ms / 1e3 / _AT_ONCE
    print("| Calls through | CPU ms a call | of which the gateway | Busy |\n|---|---:|---:|---:|")
    for name, way in WAYS.items():
        own = ""
        if way.endswith("by_gateway"):
            client = way.removesuffix("by_gateway")
            parts = zip(rounds[way], rounds[f"{client}straight"], rounds["without_a_client"], strict=True)
            own = f"{statistics.median(whole[0] - straight[0] - model[0] for whole, straight, model in parts):.2f}"
        cost, took = (statistics.median(column) for column in zip(*rounds[way], strict=True))
        print(f"| {name} | {cost:.2f} | {own} | {needed / took:.1%} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
