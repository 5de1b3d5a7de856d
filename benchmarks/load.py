"""How many requests a second the simulated endpoint sustains: ``python -m benchmarks.load [OPTIONS]``.

Starts the endpoint as a process, with its access log on, and keeps so many chat completions in flight on connections
that stay open. The generator is no HTTP client to be used elsewhere: it writes requests made beforehand, and reads of a
reply no more than its status and its length, so that it costs far less than what it measures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from time import monotonic, process_time
from typing import cast
from urllib.parse import urlsplit

from benchmarks.measuring.endpoint_process import EndpointProcess
from benchmarks.measuring.processes import cpu_s
from benchmarks.simulated.domains import DOMAINS
from benchmarks.simulated.endpoint import run
from benchmarks.simulated.landscape import VOCABULARY

_NUM_PROMPTS = 50
_SETTLING_S = 1.0
"""Before the counting begins: connections are opened, and caches filled."""


@dataclass(slots=True)
class Tally:
    """Replies so far, by status."""

    statuses: Counter[int] = field(default_factory=Counter)


class _Connection(asyncio.Protocol):
    """Sends the next request whenever the last is answered."""

    def __init__(self, requests: cycle[bytes], tally: Tally) -> None:
        self._requests, self._tally = requests, tally
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received = received = self._received + data if self._received else data
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = received[:end].lower()
        at = head.index(b"content-length:") + 15
        length = int(head[at:].split(b"\r\n", 1)[0])
        if len(received) < end + 4 + length:
            return
        self._received = b""
        self._tally.statuses[int(head[9:12])] += 1
        self._send()

    def _send(self) -> None:
        assert self._transport is not None  # noqa: S101
        self._transport.write(next(self._requests))


def requests(netloc: str) -> list[bytes]:
    """Chat completions as an evaluation asks for them: prompts of a search, each before the examples of a split."""
    made = []
    texts = [text for label in DOMAINS["tickets"].labels for text in DOMAINS["tickets"].examples(label)[:25]]
    for number in range(_NUM_PROMPTS):
        words = (VOCABULARY[(number * 7 + place * 11) % len(VOCABULARY)] for place in range(12))
        prompt = f"{DOMAINS['tickets'].initial} {' '.join(words)}"
        for text in texts:
            message = {"role": "user", "content": f"Q: {prompt}\n{text}\nA:"}
            body = json.dumps(
                {"model": "task-model", "messages": [message], "temperature": 0.0, "max_tokens": 64}
            ).encode()
            head = (
                f"POST /v1/chat/completions HTTP/1.1\r\nHost: {netloc}\r\nAuthorization: Bearer none\r\n"
                f"Accept: application/json\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            made.append(head.encode() + body)
    return made


@dataclass(frozen=True, slots=True)
class Load:
    """What was measured. Times of the processor are in milliseconds a request."""

    per_second: float
    endpoint_ms: float
    generator_ms: float
    statuses: Counter[int]


async def measured(endpoint: EndpointProcess, in_flight: int, duration_s: float) -> Load:
    """Keep so many requests in flight for so long."""
    place = urlsplit(endpoint.base_url)
    tally, made = Tally(), cycle(requests(place.netloc))
    loop = asyncio.get_running_loop()
    opened = [
        await loop.create_connection(lambda: _Connection(made, tally), str(place.hostname), place.port or 80)
        for _ in range(in_flight)
    ]
    await asyncio.sleep(_SETTLING_S)
    before, began_s, mine_s, its_s = tally.statuses.copy(), monotonic(), process_time(), cpu_s(endpoint.pid)
    await asyncio.sleep(duration_s)
    statuses = tally.statuses - before
    took_s, mine_s, its_s = monotonic() - began_s, process_time() - mine_s, cpu_s(endpoint.pid) - its_s
    for transport, _ in opened:
        transport.abort()
    num = max(1, statuses.total())
    return Load(num / took_s, 1000 * its_s / num, 1000 * mine_s / num, statuses)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one line; 0 when all requests were answered with 200."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.load", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--in-flight", type=int, default=512, help="requests under way at once")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="of the endpoint")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to measure")
    settings = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "access.jsonl"
        with EndpointProcess(log, "--latency-ms", settings.latency_ms) as endpoint:
            loads: list[Load] = []

            async def measure() -> None:
                loads.append(await measured(endpoint, settings.in_flight, settings.seconds))

            run(measure())
        num_logged = sum(1 for _ in log.open(encoding="utf-8"))
    load = loads[0]
    print(
        f"{load.per_second:.0f} requests/s, {settings.in_flight} in flight, latency {settings.latency_ms:g} ms: "
        f"{load.endpoint_ms:.3f} ms of the processor a request by the endpoint, {load.generator_ms:.3f} ms by the "
        f"generator; statuses {dict(load.statuses)}, {num_logged} lines in the access log"
    )
    return 0 if set(load.statuses) == {200} else 1


if __name__ == "__main__":
    sys.exit(main())
