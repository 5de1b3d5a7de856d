"""Measures a command on a simulated endpoint: one row of a table, and a line of JSON."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.measuring.access_log import Traffic, read_log, traffic
from benchmarks.measuring.processes import Usage, measure_usage
from benchmarks.measuring.servers import EndpointProcess


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The figures; durations in seconds, unknown values are ``None``.

    Attributes:
        wall_s: from the start of the command to its end.
        to_first_call_s: from the start of the command to its first call.
        calling_s: from the first call to the last reply.
        physical_s: the shortest time for these calls: calls · latency / limit.
        busy: ``physical_s`` as a share of ``calling_s``.
        cpu_ms_per_call: CPU time of all processes of the command from the first call to the last reply.
        cpu_s: total CPU time, including start and end.
        shares: program → (CPU seconds, bytes at the time of the peak) of its processes.
        refused, refused_late: shares of requests answered with 429: of all requests, and of those in the second half
            of ``calling_s``.
        val, test: mean scores of the final prompts, in [0, 1].
        failure: why there is no result, else empty.
    """

    name: str
    trajectories: int
    limit: int
    latency_s: float
    wall_s: float
    to_first_call_s: float | None = None
    calling_s: float | None = None
    physical_s: float | None = None
    calls: int = 0
    task_calls: int = 0
    duplicates: int = 0
    failed_calls: int = 0
    busy: float | None = None
    cpu_ms_per_call: float | None = None
    cpu_s: float = 0.0
    peak_bytes: int = 0
    peak_processes: int = 0
    shares: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    refused: float | None = None
    refused_late: float | None = None
    val: float | None = None
    test: float | None = None
    failure: str = ""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A command to measure.

    Attributes:
        command: (endpoint's base URL, working folder) → command.
        scores: (working folder, file with the output) → final scores on ``val`` and ``test``.
        env: environment variables of the command.
    """

    name: str
    command: Callable[[str, Path], Sequence[str]]
    scores: Callable[[Path, Path], tuple[float, float] | None]
    env: dict[str, str]
    endpoint_options: Sequence[object]
    limit: int
    latency_s: float
    trajectories: int = 1


def measure(subject: Subject, folder: Path, *, timeout_s: float = 900.0) -> Measurement:
    """Run a command on a new endpoint.

    Args:
        folder: working folder; created if needed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log, output = folder / "access.jsonl", folder / "output.txt"
    with EndpointProcess(log, *subject.endpoint_options) as endpoint:
        command = subject.command(endpoint.base_url, folder)
        usage = measure_usage(command, cwd=folder, output=output, env=subject.env, timeout_s=timeout_s)
    return _measurement(subject, usage, traffic(read_log(log)), subject.scores(folder, output), output)


def _measurement(
    subject: Subject, usage: Usage, seen: Traffic | None, scores: tuple[float, float] | None, output: Path
) -> Measurement:
    failure = ""
    if usage.code or scores is None:
        failure = f"exit code {usage.code}: {_last_line(output)}"
    plain = Measurement(
        name=subject.name,
        trajectories=subject.trajectories,
        limit=subject.limit,
        latency_s=subject.latency_s,
        wall_s=usage.ended_s - usage.started_s,
        cpu_s=usage.cpu_s,
        peak_bytes=usage.peak_bytes,
        peak_processes=usage.peak_processes,
        shares=usage.shares,
        val=scores[0] if scores else None,
        test=scores[1] if scores else None,
        failure=failure,
    )
    if seen is None:
        return plain
    calling_cpu_s = usage.cpu_until_s(seen.last_s) - usage.cpu_until_s(seen.first_s)
    return Measurement(
        **{
            **asdict(plain),
            "to_first_call_s": seen.first_s - usage.started_s,
            "calling_s": seen.duration_s,
            "physical_s": seen.physical_s(subject.latency_s, subject.limit),
            "calls": seen.calls,
            "task_calls": seen.task_calls,
            "duplicates": seen.duplicates,
            "failed_calls": seen.failed,
            "busy": seen.busy(subject.latency_s, subject.limit),
            "cpu_ms_per_call": 1000 * calling_cpu_s / seen.calls if seen.calls else None,
            "refused": seen.refused_share,
            "refused_late": seen.refused_late_share,
        }
    )


def _last_line(output: Path) -> str:
    lines = output.read_text(encoding="utf-8", errors="replace").split("\n")
    printed = [line.strip() for line in lines if line.strip()]
    return printed[-1][:200] if printed else "no output"


def append_line(path: Path, measurement: Measurement) -> None:
    """Append a measurement to a file of JSON lines."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(measurement)) + "\n")


@contextmanager
def working_folder(chosen: Path | None) -> Iterator[Path]:
    """The chosen folder, created if needed, or a temporary one."""
    if chosen is not None:
        chosen.mkdir(parents=True, exist_ok=True)
        yield chosen.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="gpo-bench-") as folder:
        yield Path(folder)


def measure_all(keys: Sequence[str], subject: Callable[[str], Subject], folder: Path | None) -> dict[str, Measurement]:
    """Measure subjects one after the other, and write every measurement to ``outcomes.jsonl``."""
    measurements: dict[str, Measurement] = {}
    with working_folder(folder) as kept:
        for key in keys:
            print(f"{key} ...", file=sys.stderr, flush=True)
            measurements[key] = measure(subject(key), kept / key)
            append_line(kept / "outcomes.jsonl", measurements[key])
    return measurements


def benchmark_parser(module: str, description: str | None, names: Sequence[str]) -> argparse.ArgumentParser:
    """The command line that ``saturation`` and ``scaling`` share."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{module}", description=description)
    add = parser.add_argument
    add("--only", nargs="+", choices=names, metavar="NAME", help=f"rows to measure, from {', '.join(names)}")
    add("--quick", action="store_true", help="one step each: a check that it works; start-up dominates the figures")
    add("--folder", type=Path, help="keep configurations, results, logs and outcomes.jsonl here")
    add("--set", action="append", default=[], dest="settings", metavar="a.b=c", help="an option of every gpo run")
    add("--write", action="store_true", help="write the tables into benchmarks/README.md")
    return parser
