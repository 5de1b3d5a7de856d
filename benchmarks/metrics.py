"""What metrics cost, how many series there are, and what Ray's own metrics would lose.

``python -m benchmarks.metrics`` takes four measurements. *A call*: microseconds of the processor in which the events of
one call are counted, and the size of a process's report. *An actor*: what an idle Ray actor takes of a core, and its
memory; on a shared cluster the exporter is one. *Series*: of a run with 250 trajectories, counted at its exporter.
*A run*: the same run with and without metrics, side by side, since the speed of a shared machine changes within minutes
by more than metrics cost; a real Prometheus scrapes the run every two seconds, and the processor time of all its
processes is compared.

``python -m benchmarks.metrics --ray-util`` counts in Ray actors with ``ray.util.metrics``, kills some, and prints what
Ray's metrics endpoint exports of it over time.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import re
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from time import perf_counter, process_time, sleep
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import ray
import ray.util.metrics
import yaml

from actors.metrics.counts import Counts
from actors.metrics.exporter import Exporter
from actors.metrics.recorder import Recorder
from benchmarks.measuring.processes import Usage, cpu_s, measure_usage, memory_bytes
from benchmarks.measuring.servers import ROOT, EndpointProcess, free_port
from benchmarks.measuring.subjects import Workload, command, write_configuration
from cluster.monitoring.monitor import prometheus
from cluster.session.ray_connection import ray_connection
from gpo.limits.messages import Pool
from gpo.models.events import NullObserver, Observer, Outcome
from gpo.models.protocol import Usage as Cost

_CALLS = 50_000
_POOL = Pool("http://127.0.0.1:8600/v1", "task-model", 64, 64, role="task", budget_name="r")
_TASKS, _SEEDS = 50, 5
_APART_S = 1.0
_IDLE_S = 30.0
_RAY_COUNTS, _RAY_VALUE, _RAY_LOOKS_S = 1000, 7.0, 40.0
_PARTS = ("cluster.cli", "ServeReplica", "TrajectoryActor")


def _call_us(observer: Observer, num_calls: int) -> float:
    """Microseconds of the processor in which an observer handles the events of one call."""
    usage, caller = Cost(1, prompt_tokens=80, completion_tokens=3, cost_usd=0.001), "tickets/0"
    began = process_time()
    for _ in range(num_calls):
        observer.request_queued(_POOL, caller)
        observer.request_started(_POOL, caller, 0.01, is_retry=False)
        observer.request_ended(_POOL, caller, Outcome.ANSWERED, 0.2, usage)
        observer.cache_lookup("task", caller, is_hit=False)
    return (process_time() - began) / num_calls * 1e6


def _measure_calls() -> None:
    counts = Counts()
    silent, counted = (
        min(_call_us(observer, _CALLS) for _ in range(5)) for observer in (NullObserver(), Recorder(counts, "r"))
    )
    print(f"The events of a call: {silent:.1f} µs of the processor without metrics, {counted:.1f} µs with them.")
    recorder = Recorder(counts, "r")
    for task in range(_TASKS):
        for role in ("task", "optimizer", "judge"):
            recorder.request_queued(replace(_POOL, role=role), f"task-{task}/0")
    began = perf_counter()
    size = len(pickle.dumps(counts.snapshot()))
    took_ms = (perf_counter() - began) * 1e3
    print(f"A report of {_TASKS} tasks and 3 roles: {size / 1e3:.0f} kB, made in {took_ms:.1f} ms.", flush=True)


class _RayCounter:
    """Counts with Ray's own metrics."""

    def __init__(self) -> None:
        self._counter = ray.util.metrics.Counter("gpo_counter", "Counted by actors.")
        self._histogram = ray.util.metrics.Histogram("gpo_histogram", "Counted by actors.", boundaries=[1.0, 10.0])

    def count(self) -> int:
        for _ in range(_RAY_COUNTS):
            self._counter.inc()
            self._histogram.observe(_RAY_VALUE)
        return os.getpid()


def _measure_ray_util() -> None:
    """What Ray's own metrics export of counts after their processes have ended in different ways."""
    port = free_port()
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, _metrics_export_port=port)
    actor_class: Any = ray.remote(num_cpus=0)(_RayCounter)
    first = actor_class.remote()
    ray.get(first.count.remote())
    print(f"An actor counts {_RAY_COUNTS} values of {_RAY_VALUE:g} (default export interval of Ray):")
    _print_ray_counts(port)
    print(f"{_RAY_COUNTS} more each by three actors: killed by SIGKILL, killed by ray.kill, and terminated normally:")
    killed, ended, terminating = others = [actor_class.remote() for _ in range(3)]
    pids = ray.get([actor.count.remote() for actor in others])
    os.kill(pids[others.index(killed)], signal.SIGKILL)
    ray.kill(ended)
    terminating.__ray_terminate__.remote()
    _print_ray_counts(port)
    ray.shutdown()


def _print_ray_counts(port: int) -> None:
    began, before = perf_counter(), ""
    while (now_s := perf_counter() - began) < _RAY_LOOKS_S:
        try:
            with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
                text = reply.read().decode()
        except OSError:
            text = ""
        names = ("counter", "histogram_count", "histogram_sum")
        found = {name: re.findall(rf"^ray_gpo_{name}(?:_total)?\{{.*\}} (\S+)$", text, re.MULTILINE) for name in names}
        now = ", ".join(f"{name} {sum(map(float, values)):,.0f}" for name, values in found.items())
        if now != before:
            print(f"  after {now_s:4.1f} s: {now}", flush=True)
        before = now
        sleep(0.2)


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
            # In alternating order, so that the same one does not always start first.
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
    with ray_connection("local", cpus_needed=1):
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
    """Print the measurements; returns 0 if they are complete."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.metrics", description=__doc__)
    parser.add_argument("--pairs", type=int, default=2, help="pairs of runs; 0 leaves them out")
    parser.add_argument("--steps", type=int, default=4, help="of each of the 16 trajectories of each run")
    parser.add_argument("--no-series", action="store_true", help="leave the run with 250 trajectories out")
    parser.add_argument("--ray-util", action="store_true", help="measure only what Ray's own metrics lose")
    settings = parser.parse_args(arguments)
    if settings.ray_util:
        _measure_ray_util()
        return 0
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
