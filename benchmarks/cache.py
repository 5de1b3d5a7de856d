"""The cost of the completion cache: ``python -m benchmarks.cache [--redis-url-env NAME]``.

Prints wall and CPU time per call, with 100 concurrent calls (as in an evaluation) and with sequential calls. The model
that the cache wraps replies immediately; its own time is subtracted.
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


class InstantModel:
    """A model that replies immediately."""

    async def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        """The same reply to everything; see ``gpo.models.protocol.ChatModel``."""
        await asyncio.sleep(0)
        return Completion("x" * _REPLY_CHARACTERS, Usage(requests=1))


async def _per_call(model: ChatModel, num_calls: int, at_once: int) -> tuple[float, float]:
    """Wall and CPU microseconds per call."""
    conversations: list[list[Message]] = [
        [{"role": "user", "content": f"{number} " + "q" * _QUESTION_CHARACTERS}] for number in range(num_calls)
    ]
    sampling = Sampling(temperature=0.0, max_tokens=64)
    wall_s, cpu_s = perf_counter(), process_time()
    for first in range(0, num_calls, at_once):
        await asyncio.gather(*(model.complete(one, sampling) for one in conversations[first : first + at_once]))
    return (perf_counter() - wall_s) / num_calls * 1e6, (process_time() - cpu_s) / num_calls * 1e6


async def _measure(name: str, store: CompletionStore) -> None:
    for at_once, num_calls in ((100, 20_000), (1, 3_000)):
        bare = await _per_call(InstantModel(), num_calls, at_once)
        # Unique keys: every call of the first round misses, and every call of the second hits.
        model = CachedModel(InstantModel(), store, {"model": f"{at_once} at once"})
        for outcome in ("miss", "hit"):
            wall, cpu = await _per_call(model, num_calls, at_once)
            print(f"| {name} | {outcome} | {at_once} | {wall - bare[0]:.0f} | {cpu - bare[1]:.0f} |", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cache", description=__doc__)
    parser.add_argument("--redis-url-env", help="environment variable with the URL of a Redis server to measure, too")
    settings = parser.parse_args(arguments)
    print("| Store | | Concurrent calls | µs a call | CPU µs a call |\n|---|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_measure("SQLite", SqliteStore(Path(folder) / "completions.sqlite")))
    if settings.redis_url_env:
        asyncio.run(_measure("Redis", RedisStore(settings.redis_url_env, ttl_s=60)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
