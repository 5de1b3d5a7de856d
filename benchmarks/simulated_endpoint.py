"""An OpenAI-compatible endpoint that simulates a task model, an optimizer model and an embedding model.

``python -m benchmarks.simulated_endpoint --port 8600`` runs it as a process, ``SimulatedEndpoint`` in a test. Replies
depend on the request and the endpoint's seed alone; a request with a temperature and without a seed gets a new reply
each time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.simulated.bad_replies import BadReply
from benchmarks.simulated.domains import DOMAINS
from benchmarks.simulated.endpoint import SimulatedEndpoint, json_lines_log, run, serve
from benchmarks.simulated.landscape import HARMFUL, HELPFUL, quality
from benchmarks.simulated.models import embed
from benchmarks.simulated.modes import Mode
from benchmarks.simulated.service import CLIENT_GONE, AccessRecord, Behaviour, Service

__all__ = [
    "CLIENT_GONE",
    "HARMFUL",
    "HELPFUL",
    "AccessRecord",
    "BadReply",
    "Behaviour",
    "Mode",
    "SimulatedEndpoint",
    "embed",
    "main",
    "quality",
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the endpoint until SIGTERM or SIGINT and return 0; return 1 if it cannot open the address or the log."""
    parser = _parser()
    settings = parser.parse_args(arguments)
    behaviour = _behaviour(settings, parser)
    with ExitStack() as files:
        try:
            log = json_lines_log(settings.access_log, files) if settings.access_log else lambda _: None
            run(_serve_until_signalled(Service(behaviour, log), settings.host, settings.port))
        except OSError as error:
            print(f"cannot start: {error}", file=sys.stderr)
            return 1
    return 0


async def _serve_until_signalled(service: Service, host: str, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve(service, host, port, announce=lambda url: print(f"listening on {url}", flush=True), stop=stop)


def _behaviour(settings: argparse.Namespace, parser: argparse.ArgumentParser) -> Behaviour:
    key = None
    if settings.api_key_env:
        key = os.environ.get(settings.api_key_env, "")
        if not key:
            parser.error(f"--api-key-env: environment variable {settings.api_key_env} is not set")
    return Behaviour(
        latency_s=settings.latency_ms / 1000,
        latency_per_token_s=settings.latency_per_token_ms / 1000,
        limit=settings.limit,
        retry_after_s=settings.retry_after_s,
        error_rate=settings.error_rate,
        hang_rate=settings.hang_rate,
        malformed_rate=settings.malformed_rate,
        bad_replies=_rates(settings.bad_reply, parser),
        repeats_key=settings.repeats_key,
        seed=settings.seed,
        api_key=key,
        models=tuple(settings.models),
        list_models=not settings.no_models,
        mode=Mode(settings.mode) if settings.mode else None,
    )


def _rates(given: Sequence[str], parser: argparse.ArgumentParser) -> dict[BadReply, float]:
    rates: dict[BadReply, float] = {}
    for entry in given:
        kind, _, share = entry.partition("=")
        try:
            rates[BadReply(kind)] = _share(share)
        except (ValueError, argparse.ArgumentTypeError):
            parser.error(f"--bad-reply: {entry!r} is not KIND=SHARE; kinds: {', '.join(BadReply)}")
    if sum(rates.values()) > 1:
        parser.error("--bad-reply: the shares add up to more than 1")
    return rates


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not in [0, 1]")
    return share


def _duration(text: str) -> float:
    duration = float(text)
    if not 0 <= duration < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number of at least 0")
    return duration


def _port(text: str) -> int:
    # Event loops treat larger numbers differently; one of them wraps around to 0.
    if not 0 <= int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text} is not in [0, 65535]")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    usual = Behaviour()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.simulated_endpoint",
        description="An OpenAI-compatible endpoint that simulates a task model, an optimizer model and an embedding "
        "model. Replies depend on the request and the seed alone. Every model answers the examples of four domains "
        f"({', '.join(DOMAINS)}), follows meta-prompts, judges answers and embeds texts.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=_port, default=8600, help="port to listen on; 0 picks a free port")
    add("--seed", type=int, default=usual.seed, help="determines all pseudo-random choices")
    add("--models", nargs="+", metavar="NAME", default=list(usual.models), help="model names that the endpoint accepts")
    add("--no-models", action="store_true", help="answer GET /v1/models with 404")
    add(
        "--api-key-env",
        metavar="NAME",
        help="environment variable that holds the required API key",
    )
    add("--access-log", type=Path, metavar="FILE", help="write every request as a line of JSON to this file")
    load = parser.add_argument_group("load")
    add = load.add_argument
    add("--latency-ms", type=_duration, default=0.0, help="time before every chat and embedding reply")
    add("--latency-per-token-ms", type=_duration, default=0.0, help="additional time for each word of a chat reply")
    add("--limit", type=int, metavar="N", help="requests served at once; further ones get status 429")
    add("--retry-after-s", type=_duration, default=usual.retry_after_s, help="Retry-After of these refusals")
    faults = parser.add_argument_group("faults, as shares of the chat requests")
    add = faults.add_argument
    add("--error-rate", type=_share, default=usual.error_rate, help="get status 500; retries succeed eventually")
    add("--hang-rate", type=_share, default=usual.hang_rate, help="never answered; retries succeed eventually")
    add(
        "--malformed-rate",
        type=_share,
        default=usual.malformed_rate,
        help="meta-prompts that get a reply without a prompt",
    )
    add(
        "--bad-reply",
        action="append",
        default=[],
        metavar="KIND=SHARE",
        help=f"a kind of bad reply; can be repeated; kinds: {', '.join(BadReply)}",
    )
    add(
        "--mode",
        choices=list(Mode),
        help="something that real endpoints do differently; see docs/reference/endpoints.md",
    )
    add("--repeats-key", action="store_true", help="quote the key in error messages")
    return parser


if __name__ == "__main__":
    sys.exit(main())
