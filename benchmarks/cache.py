"""What the completion cache costs a call: ``python -m benchmarks.cache [--redis-url-env NAME]``.

Time on the clock and of the processor, per call, with 100 examples asked for at once (as an evaluation does) and one
after the other; the model behind it replies at once, and what it takes itself is subtracted.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, process_time

from gpo.cache.redis import RedisStore
from gpo.cache.sqlite import SqliteStore
from gpo.cache.store import CompletionStore
from gpo.models.cached import CachedModel
from gpo.models.protocol import ChatModel, Completion, Message, Sampling, Usage

_QUESTION_CHARACTERS, _REPLY_CHARACTERS = 600, 400


class Instant:
    """A model that replies at once."""

    async def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        """The same reply to everything; see ``gpo.models.protocol.ChatModel``."""
        await asyncio.sleep(0)
        return Completion("x" * _REPLY_CHARACTERS, Usage(requests=1))


async def _per_call(model: ChatModel, num_calls: int, at_once: int) -> tuple[float, float]:
    """Microseconds per call, on the clock and of the processor."""
    conversations: list[list[Message]] = [
        [{"role": "user", "content": f"{number} " + "q" * _QUESTION_CHARACTERS}] for number in range(num_calls)
    ]
    sampling = Sampling(temperature=0.0, max_tokens=64)
    clock, processor = perf_counter(), process_time()
    for first in range(0, num_calls, at_once):
        await asyncio.gather(*(model.complete(one, sampling) for one in conversations[first : first + at_once]))
    return (perf_counter() - clock) / num_calls * 1e6, (process_time() - processor) / num_calls * 1e6


async def _measure(name: str, store: CompletionStore) -> None:
    for at_once, num_calls in ((100, 20_000), (1, 3_000)):
        bare = await _per_call(Instant(), num_calls, at_once)
        # Each has keys of its own, so that the first round misses everything and the second nothing.
        model = CachedModel(Instant(), store, {"model": f"{at_once} at once"})
        for what in ("miss", "hit"):
            clock, processor = await _per_call(model, num_calls, at_once)
            print(f"| {name} | {what} | {at_once} | {clock - bare[0]:.0f} | {processor - bare[1]:.0f} |", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table; 0 when it is complete."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cache", description=__doc__)
    parser.add_argument("--redis-url-env", help="also measure the Redis server whose address this variable holds")
    settings = parser.parse_args(arguments)
    print("| Store | | At once | µs a call | µs of the processor |\n|---|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_measure("SQLite", SqliteStore(Path(folder) / "completions.sqlite")))
    if settings.redis_url_env:
        asyncio.run(_measure("Redis", RedisStore(settings.redis_url_env, ttl_s=60)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
