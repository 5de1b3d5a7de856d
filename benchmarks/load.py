"""How many requests a second the simulated endpoint can serve: ``python -m benchmarks.load [OPTIONS]``.

Starts the endpoint as a process with an access log and keeps a number of chat completions in flight on persistent
connections. The load generator is not a general HTTP client: it sends prepared requests and reads only the status and
length of a reply, so that it takes far less CPU time than the endpoint.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from time import monotonic, process_time
from typing import cast
from urllib.parse import urlsplit

from benchmarks.measuring.processes import cpu_s
from benchmarks.measuring.servers import EndpointProcess
from benchmarks.simulated.domains import DOMAINS
from benchmarks.simulated.endpoint import run
from benchmarks.simulated.landscape import VOCABULARY

_NUM_PROMPTS = 50
_SETTLING_S = 1.0
"""Time to open connections and fill caches before the measurement."""


class _Connection(asyncio.Protocol):
    """Sends the next request as soon as the last one is answered; counts replies by status."""

    def __init__(self, requests: cycle[bytes], statuses: Counter[int]) -> None:
        self._requests, self._statuses = requests, statuses
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
        self._statuses[int(head[9:12])] += 1
        self._send()

    def _send(self) -> None:
        assert self._transport is not None  # noqa: S101
        self._transport.write(next(self._requests))


def requests(netloc: str) -> list[bytes]:
    """Chat completions as in an evaluation: every prompt of a search with every example of a split."""
    made = []
    texts = [text for label in DOMAINS["tickets"].labels for text in DOMAINS["tickets"].examples(label)[:25]]
    for number in range(_NUM_PROMPTS):
        words = (VOCABULARY[(number * 7 + index * 11) % len(VOCABULARY)] for index in range(12))
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
class Throughput:
    """Requests a second, and CPU milliseconds per request."""

    per_second: float
    endpoint_ms: float
    generator_ms: float
    statuses: Counter[int]


async def measure(endpoint: EndpointProcess, in_flight: int, duration_s: float) -> Throughput:
    """Keep ``in_flight`` requests in flight for ``duration_s``."""
    address = urlsplit(endpoint.base_url)
    counts, prepared = Counter[int](), cycle(requests(address.netloc))
    loop = asyncio.get_running_loop()
    opened = [
        await loop.create_connection(lambda: _Connection(prepared, counts), str(address.hostname), address.port or 80)
        for _ in range(in_flight)
    ]
    await asyncio.sleep(_SETTLING_S)
    before, began_s, generator_s, endpoint_s = counts.copy(), monotonic(), process_time(), cpu_s(endpoint.pid)
    await asyncio.sleep(duration_s)
    statuses = counts - before
    took_s = monotonic() - began_s
    generator_s, endpoint_s = process_time() - generator_s, cpu_s(endpoint.pid) - endpoint_s
    for transport, _ in opened:
        transport.abort()
    num = max(1, statuses.total())
    return Throughput(num / took_s, 1000 * endpoint_s / num, 1000 * generator_s / num, statuses)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one line; return 0 if all requests were answered with 200."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.load", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--in-flight", type=int, default=512, help="concurrent requests")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="latency of the endpoint")
    parser.add_argument("--seconds", type=float, default=5.0, help="duration of the measurement")
    settings = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "access.jsonl"
        with EndpointProcess(log, "--latency-ms", settings.latency_ms) as endpoint:
            load = run(measure(endpoint, settings.in_flight, settings.seconds))
        num_logged = sum(1 for _ in log.open(encoding="utf-8"))
    print(
        f"{load.per_second:.0f} requests/s, {settings.in_flight} in flight, latency {settings.latency_ms:g} ms: "
        f"{load.endpoint_ms:.3f} CPU ms a request in the endpoint, {load.generator_ms:.3f} CPU ms in the "
        f"generator; statuses {dict(load.statuses)}, {num_logged} lines in the access log"
    )
    return 0 if set(load.statuses) == {200} else 1


if __name__ == "__main__":
    sys.exit(main())
