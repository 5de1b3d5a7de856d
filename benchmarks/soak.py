"""Whether anything grows in a long run: ``python -m benchmarks.soak [OPTIONS]``.

Runs ``gpo run`` with 64 concurrent calls on a simulated endpoint, reads the resources of its processes after two and
after ten minutes, and interrupts it as Ctrl-C does. ``benchmarks/README.md`` defines which growth counts as flat.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.measuring.access_log import AnsweredCalls, read_log, traffic
from benchmarks.measuring.commands import CommandRunner, exit_on_sigterm
from benchmarks.measuring.kills import PROGRAMS, Part
from benchmarks.measuring.measurement import working_folder
from benchmarks.measuring.processes import Process
from benchmarks.measuring.resources import Resources, Tolerance, growths, read_resources
from benchmarks.measuring.servers import ROOT, EndpointProcess
from benchmarks.measuring.subjects import NUM_PER_LABEL, Workload, command, write_configuration
from benchmarks.measuring.tables import write_between

TASK_COUNTER = ROOT / "benchmarks" / "measuring" / "task_counter"
WORKLOAD = Workload(
    name="soak", trajectories=8, steps=100_000, limit=64, sections={"metrics": {"port": 0, "linger_s": 0}}
)
PARTS = frozenset(Part) - {Part.MODEL}
"""The parts that must run at both readings."""
_END_TIMEOUT_S = 30.0
_EXAMPLES = 4 * NUM_PER_LABEL["val"]
_PROMPT_BYTES = 20_000
"""Memory of a scored prompt in its trajectory's actor: 9 kB for the prompt and its 100 scores, and as much again for
copies made at each checkpoint."""
_MEGABYTE = 1_000_000


class Soak:
    """An observer that reads the resources of all processes at some times, and interrupts the run after the last one.

    Args:
        times_s: seconds after the first model call.
        log: of the endpoint.
        task_counts: folder in which the processes count their asyncio tasks.

    Attributes:
        readings: one per time so far: process ID → resources.
        answered: answered calls at each reading.
    """

    def __init__(self, times_s: Sequence[float], log: Path, task_counts: Path) -> None:
        self._times_s, self._answered, self._task_counts = list(times_s), AnsweredCalls(log), task_counts
        self._begun_s: float | None = None
        self.readings: list[dict[int, Resources]] = []
        self.answered: list[int] = []

    def observe(self, now_s: float, processes: Sequence[Process]) -> None:
        """Read the resources if it is time to."""
        if self._begun_s is None:
            self._begun_s = now_s if self._answered() else None
        elif len(self.readings) < len(self._times_s) and (now_s - self._begun_s >= self._times_s[len(self.readings)]):
            self.readings.append(read_resources(processes, self._task_counts))
            self.answered.append(self._answered())
            print(f"read {len(processes)} processes after {now_s - self._begun_s:.0f} s", file=sys.stderr, flush=True)
            if len(self.readings) == len(self._times_s):
                (driver,) = [process for process in processes if PROGRAMS.get(process.program) is Part.DRIVER]
                os.killpg(driver.pid, signal.SIGINT)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, and write it if asked; return 0 if everything was flat and no process remained."""
    settings = _parser().parse_args(arguments)
    with working_folder(settings.folder) as folder:
        task_counts, log = folder / "task_counts", folder / "access.jsonl"
        task_counts.mkdir(exist_ok=True)
        times_s, runner = [60 * minutes for minutes in settings.minutes], CommandRunner()
        with EndpointProcess(log, *WORKLOAD.endpoint_options) as endpoint:
            config = write_configuration(folder, WORKLOAD, endpoint.base_url)
            soak = Soak(times_s, log, task_counts)
            result = runner.run(
                command(config, folder / "results"),
                soak,
                cwd=folder,
                output=folder / "output.txt",
                env={"PYTHONPATH": f"{TASK_COUNTER}{os.pathsep}{ROOT}", "BENCHMARK_TASK_COUNTS": str(task_counts)},
                timeout_s=times_s[-1] + 180.0,
            )
            left_s = runner.wait_until_gone(_END_TIMEOUT_S)
        (left,), seen = runner.kill_remaining(), traffic(read_log(log))
        (folder / "readings.json").write_text(
            json.dumps([{pid: asdict(resources) for pid, resources in reading.items()} for reading in soak.readings]),
            "utf-8",
        )
    if len(soak.readings) < len(times_s) or seen is None:
        print(f"the run ended early, with exit code {result.code}", file=sys.stderr)
        return 1
    prompts = (soak.answered[-1] - soak.answered[0]) // _EXAMPLES
    text, is_flat = table(soak.readings[0], soak.readings[-1], settings.minutes, prompts)
    text += (
        f"\n\n{seen.calls:,} calls in {seen.duration_s:.0f} s ({seen.calls / seen.duration_s:.0f} a second), "
        f"{seen.duplicates} task calls repeated. "
        f"Processes left {left_s:.1f} s after the interrupted command had ended: {len(left)}."
    )
    print(text)
    if settings.write:
        write_between(ROOT / "benchmarks" / "README.md", "soak", text)
    return 0 if is_flat and not left else 1


def table(
    before: dict[int, Resources], after: dict[int, Resources], minutes: Sequence[float], prompts: int = 0
) -> tuple[str, bool]:
    """A Markdown table with one row for each process in both readings, and whether the run is flat.

    It is not flat if a process grew, or if one of ``PARTS`` is missing, started or ended between the readings.

    Args:
        prompts: number of prompts scored between the readings; trajectory actors keep them.
    """
    when = f"minute {minutes[0]:g} → {minutes[-1]:g}"
    header = ["Process", f"Private memory, {when}", "RSS", "Threads", "Files", "Sockets", "Tasks", "Flat"]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    both = [pid for pid in before.keys() & after.keys() if before[pid].program == after[pid].program]
    is_flat = True
    for pid in sorted(both, key=lambda pid: -after[pid].private):
        then, now = before[pid], after[pid]
        expected = prompts * _PROMPT_BYTES if PROGRAMS.get(now.program) is Part.ACTOR else 0
        grown = growths(then, now, Tolerance(), WORKLOAD.limit, expected_bytes=expected)
        is_flat = is_flat and not grown
        sizes = [
            f"{getattr(then, name) / _MEGABYTE:,.1f} → {getattr(now, name) / _MEGABYTE:,.1f} MB"
            for name in ("private", "rss")
        ]
        counts = [f"{getattr(then, name)} → {getattr(now, name)}" for name in ("threads", "files", "sockets")]
        tasks = "–" if now.tasks is None else f"{then.tasks} → {now.tasks}"
        lines.append([now.program, *sizes, *counts, tasks, "no: " + ", ".join(grown) if grown else "yes"])
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    changed = sorted(
        resources.program for when in (before, after) for pid, resources in when.items() if pid not in both
    )
    replaced = [program for program in changed if program in PROGRAMS]
    missing = sorted(PARTS - {PROGRAMS.get(before[pid].program) for pid in both})
    for words, names in (("Started or ended in between", changed), ("Not in both readings", missing)):
        text += f"\n\n{words}: {', '.join(names)}." if names else ""
    return text, is_flat and not replaced and not missing


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    add = parser.add_argument
    add("--minutes", type=float, nargs="+", default=[2.0, 10.0], help="when to read the resources (default: 2 10)")
    add("--folder", type=Path, help="keep everything here")
    add("--write", action="store_true", help="write the table into benchmarks/README.md")
    return parser


if __name__ == "__main__":
    exit_on_sigterm()
    sys.exit(main())
