"""What a measurement of a command came to: one row of a table, and a line of JSON."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.measuring.access_log import Traffic, read_log, traffic
from benchmarks.measuring.endpoint_process import EndpointProcess
from benchmarks.measuring.processes import Usage, watched


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The figures. Durations in seconds; what cannot be told is ``None``.

    Attributes:
        wall_s: of the command, from its start to its end.
        to_first_call_s: from its start to its first call.
        calling_s: from its first call to the reply to its last.
        physical_s: what so many calls take at least: calls · latency / limit.
        busy: that as a share of ``calling_s``.
        cpu_ms_per_call: time of the processor from the first call to the last, of all processes of the command.
        cpu_s: time of the processor in all, start and end included.
        shares: program → (seconds of the processor, bytes at the time of the peak) of its processes.
        refused, refused_late: shares of the requests, of all and of those in the second half of ``calling_s``, that
            were answered 429.
        val, test: mean scores of the final prompts, in [0, 1].
        failure: why there is no result; empty where there is one.
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
    """Something to be measured.

    Attributes:
        command: from the endpoint's base URL and a folder of its own to what is to be run there.
        scores: the final scores on ``val`` and ``test``, from that folder and the file with what was printed.
        env: for the command.
    """

    name: str
    command: Callable[[str, Path], Sequence[str]]
    scores: Callable[[Path, Path], tuple[float, float] | None]
    env: dict[str, str]
    endpoint_options: Sequence[object]
    limit: int
    latency_s: float
    trajectories: int = 1


def measured(subject: Subject, folder: Path, *, timeout_s: float = 900.0) -> Outcome:
    """Run a command on an endpoint of its own.

    Args:
        folder: for its files; made where it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log, output = folder / "access.jsonl", folder / "output.txt"
    with EndpointProcess(log, *subject.endpoint_options) as endpoint:
        command = subject.command(endpoint.base_url, folder)
        usage = watched(command, cwd=folder, output=output, env=subject.env, timeout_s=timeout_s)
    return _outcome(subject, usage, traffic(read_log(log)), subject.scores(folder, output), output)


def _outcome(
    subject: Subject, usage: Usage, seen: Traffic | None, scores: tuple[float, float] | None, output: Path
) -> Outcome:
    failure = ""
    if usage.code or scores is None:
        failure = f"exit code {usage.code}: {_last_line(output)}"
    plain = Outcome(
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
    return Outcome(
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
    said = [line.strip() for line in lines if line.strip()]
    return said[-1][:200] if said else "it said nothing"


def append_line(path: Path, outcome: Outcome) -> None:
    """Append an outcome to a file of JSON lines."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(outcome)) + "\n")


@contextmanager
def working_folder(chosen: Path | None) -> Iterator[Path]:
    """The chosen folder, made where it is missing, or one that goes with the context."""
    if chosen is not None:
        chosen.mkdir(parents=True, exist_ok=True)
        yield chosen.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="gpo-bench-") as folder:
        yield Path(folder)
