"""What metrics cost, and how many series there are: ``python -m benchmarks.metrics [--pairs N]``.

Four measurements. *A call*: microseconds of the processor that counting adds to one call through gate and cache, and
how long a scrape takes to read it all. *A run*: the same run with and without metrics, side by side at the same time,
since a shared machine changes its speed by more within minutes than what is to be seen; a real Prometheus scrapes the
one every two seconds. Time of the processor of all processes that ``gpo run`` started; such runs answer scrapes in
their drivers. *An actor*: what a Ray actor with nothing to do takes of a core, and its memory: on a cluster that a run
has not started itself, the exporter is one. *Series*: of a run with 250 trajectories, counted at its exporter.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread
from time import perf_counter, process_time, sleep
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import ray
import yaml

from actors.metrics.book import Book, pages
from actors.metrics.exporter import Exporter
from actors.metrics.recording import Recorder
from actors.metrics.tally import tally
from benchmarks.measuring.processes import Usage, cpu_s, measure_usage, memory_bytes
from benchmarks.measuring.servers import ROOT, EndpointProcess
from benchmarks.measuring.subjects import Workload, command, write_configuration
from cluster.metrics.monitor import prometheus
from cluster.session.ray_session import ray_session
from gpo import events as observing
from gpo.events import Outcome
from gpo.limits.messages import Pool
from gpo.models.protocol import Usage as Cost

_CALLS = 50_000
_POOL = Pool("http://127.0.0.1:8600/v1", "task-model", 64, 64, role="task", budget_name="r")
_TASKS, _SEEDS = 50, 5
_APART_S = 1.0
_IDLE_S = 30.0
_PARTS = ("cluster.cli", "ServeReplica", "TrajectoryActor")


def _call_us(num_calls: int) -> float:
    """Microseconds of the processor that one call tells its observer in."""
    observer, cost = observing.observer(), Cost(1, prompt_tokens=80, completion_tokens=3, cost_usd=0.001)
    began = process_time()
    for _ in range(num_calls):
        observer.request_queued(_POOL, "tickets/0")
        observer.request_started(_POOL, "tickets/0", 0.0, is_retry=False)
        observer.request_ended(_POOL, "tickets/0", Outcome.ANSWERED, 0.05, cost)
    return (process_time() - began) / num_calls * 1e6


def _measure_calls() -> None:
    silent = min(_call_us(_CALLS) for _ in range(3))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "node"
        book = Book(folder, "r", "evaluator")
        observing.install(Recorder(book, "r"))
        counted = min(_call_us(_CALLS) for _ in range(3))
        began = perf_counter()
        tally(pages(folder))
        read_ms = (perf_counter() - began) * 1e3
    print(f"A call: {silent:.1f} µs of the processor without metrics, {counted:.1f} µs with them.")
    print(f"A book of one process is read in {read_ms:.2f} ms.", flush=True)


def _run(folder: Path, load: Workload, home: Path) -> tuple[Usage, int]:
    """What a run used, and how many calls it made."""
    folder.mkdir()
    log = folder / "access.jsonl"
    with EndpointProcess(log, *load.endpoint_options) as endpoint:
        config = write_configuration(folder, load, endpoint.base_url)
        env = {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(home)}
        usage = measure_usage(command(config, folder / "results"), cwd=folder, output=folder / "output", env=env)
    if usage.code:
        raise SystemExit(f"the run failed; see {folder / 'output'}")
    return usage, sum(b"/chat/completions" in line for line in log.read_bytes().splitlines())


def _measure_runs(pairs: int, folder: Path, steps: int) -> None:
    os.environ["XDG_CACHE_HOME"] = str(folder / "home")
    shares: list[float] = []
    print(
        "| Pair | CPU without | CPU with | More | driver | replicas | actors | Clock without | with | Calls |\n"
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    )
    with prometheus(None, 19_091), ThreadPoolExecutor(max_workers=2) as together:
        for pair in range(pairs):
            twins: dict[bool, Future[tuple[Usage, int]]] = {}
            # In turn first and second, so that neither is always the one that starts alone.
            for is_on in (False, True) if pair % 2 else (True, False):
                sections = {"metrics": {"port": 0, "linger_s": 5}} if is_on else {}
                load = Workload(
                    name="metrics", trajectories=16, steps=steps, limit=64, latency_ms=200, sections=sections
                )
                twins[is_on] = together.submit(_run, folder / f"{pair}-{is_on}", load, folder / "home")
                sleep(_APART_S)
            (off, calls), (on, _) = (twins[is_on].result() for is_on in (False, True))
            shares.append(on.cpu_s / off.cpu_s - 1)
            parts = (f"{_used_s(on, name) - _used_s(off, name):+.1f} s" for name in _PARTS)
            print(
                f"| {pair + 1} | {off.cpu_s:.1f} s | {on.cpu_s:.1f} s | {shares[-1]:+.1%} | {' | '.join(parts)} | "
                f"{off.ended_s - off.started_s:.1f} s | {on.ended_s - on.started_s:.1f} s | {calls:,} |",
                flush=True,
            )
    error = statistics.stdev(shares) / len(shares) ** 0.5 if len(shares) > 1 else float("nan")
    print(f"Metrics take {statistics.mean(shares):+.2%} ± {error:.2%} of the CPU of a run.")


def _used_s(usage: Usage, program: str) -> float:
    return usage.shares.get(program, (0.0, 0))[0]


def _measure_actor() -> None:
    with ray_session("local", cpus_needed=1):
        idle: Any = ray.remote(Exporter).options(num_cpus=0).remote()
        pid = ray.get(idle.__ray_call__.remote(lambda _: os.getpid()))
        started_s = cpu_s(pid)
        sleep(_IDLE_S)
        share = (cpu_s(pid) - started_s) / _IDLE_S
        print(
            f"An idle actor: {started_s:.2f} s of the processor to start, {share:.1%} of a core, "
            f"{memory_bytes(pid) / 1e6:.0f} MB.",
            flush=True,
        )


def _measure_series(folder: Path) -> None:
    folder.mkdir()
    home = folder / "home"
    with EndpointProcess(folder / "access.jsonl") as endpoint:
        load = Workload(name="series", trajectories=_SEEDS, steps=1, limit=64, latency_ms=0,
                    sections={"metrics": {"port": 0, "linger_s": 60}})  # fmt: skip
        config = write_configuration(folder, load, endpoint.base_url)
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
        content["tasks"] = [{**content["tasks"][0], "name": f"task-{number}"} for number in range(_TASKS)]
        config.write_text(yaml.safe_dump(content), encoding="utf-8")
        over, seen = Event(), [b""]
        scraping = Thread(target=_scrape, args=(home, over, seen))
        scraping.start()
        env = {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(home)}
        settings = ["evaluation.val_size=4", "evaluation.test_size=4", "optimizer.candidates=2"]
        measure_usage(command(config, folder / "results", settings), cwd=folder, output=folder / "output", env=env)
        over.set()
        scraping.join()
    lines = [line for line in seen[0].splitlines() if not line.startswith(b"#")]
    print(
        f"{_TASKS * _SEEDS} trajectories ({_TASKS} tasks, {_SEEDS} seeds): {len(lines):,} series, "
        f"{len(seen[0]) / 1e6:.2f} MB a scrape."
    )


def _scrape(home: Path, over: Event, seen: list[bytes]) -> None:
    """Keep the longest answer."""
    while not over.wait(1.0):
        for file in (home / "gpo" / "monitoring" / "targets").glob("*.json"):
            try:
                address = json.loads(file.read_text(encoding="utf-8"))[0]["targets"][0]
                with urlopen(f"http://{address}/metrics", timeout=5) as reply:
                    seen[0] = max(seen[0], reply.read(), key=len)
            except (OSError, URLError, ValueError):
                continue


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what was measured; 0 when it is complete."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.metrics", description=__doc__)
    parser.add_argument("--pairs", type=int, default=2, help="pairs of runs; 0 leaves them out")
    parser.add_argument("--steps", type=int, default=4, help="of each of the 16 trajectories of each run")
    parser.add_argument("--no-series", action="store_true", help="leave the run with 250 trajectories out")
    settings = parser.parse_args(arguments)
    _measure_calls()
    _measure_actor()
    folder = Path(tempfile.mkdtemp(prefix="gpo-metrics-benchmark-"))
    try:
        if not settings.no_series:
            _measure_series(folder / "series")
        if settings.pairs:
            _measure_runs(settings.pairs, folder, settings.steps)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
