"""How long commands take to begin: ``python -m benchmarks.start [--rounds N]``.

Each command runs in rounds that take turns, so that other load on the machine affects all of them equally. Beside each
one stands what it cannot be faster than: the imports of its libraries, or Ray and Serve with an empty deployment. For
``gpo run``, the processor time of each process is printed as well, over a run that scores one prompt.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measuring.access_log import read_log, traffic
from benchmarks.measuring.processes import Usage, measure_usage
from benchmarks.measuring.servers import ROOT, EndpointProcess
from benchmarks.measuring.subjects import Workload, write_configuration

_GPO = [sys.executable, "-m", "cluster.cli"]
_RAY_AND_SERVE = """
import logging, ray
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
from ray import serve
serve.start(proxy_location="Disabled")
class Empty:
    def __call__(self): return 1
assert serve.run(serve.deployment(Empty).bind(), route_prefix=None).remote().result() == 1
print("first call")
"""
_WORKLOAD = Workload(name="start", trajectories=1, steps=0, limit=32, latency_ms=50)


@dataclass(frozen=True, slots=True)
class Command:
    """A command and its row of the table.

    Attributes:
        words: (configuration, results folder) → command.
        until_first_call: whether the time ends with the first call at the endpoint, and not with the command.
    """

    name: str
    words: Callable[[Path, Path], Sequence[str]]
    until_first_call: bool = False


_COMMANDS = (
    Command("Python and typer alone", lambda *_: [sys.executable, "-c", "import typer, typer.rich_utils"]),
    Command("`gpo --help`", lambda *_: [*_GPO, "--help"]),
    Command("the `openai` package alone", lambda *_: [sys.executable, "-c", "import openai"]),
    Command(
        "`gpo evaluate`",
        lambda config, _: [*_GPO, "evaluate", str(config), "--prompt", "Sort the ticket.", "--split", "test"],
    ),
    Command("Ray and Serve alone, to a first request", lambda *_: [sys.executable, "-c", _RAY_AND_SERVE]),
    Command(
        "`gpo run`, to its first call",
        lambda config, results: [*_GPO, "run", str(config), "--run-dir", str(results)],
        until_first_call=True,
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; the exit code says whether every command worked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args(arguments).rounds
    seconds: dict[str, list[float]] = defaultdict(list)
    cpu: dict[str, list[float]] = defaultdict(list)
    shares: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="gpo-start-") as folder:
        for number in range(rounds):
            for command in _COMMANDS:
                here = Path(folder) / f"{number}-{len(seconds[command.name])}-{_COMMANDS.index(command)}"
                here.mkdir()
                usage, took_s = _measured(command, here)
                if usage.code:
                    print(f"{command.name} failed: {(here / 'output.txt').read_text()[-500:]}", file=sys.stderr)
                    return 1
                seconds[command.name].append(took_s)
                cpu[command.name].append(usage.cpu_until_s(usage.started_s + took_s))
                if command.until_first_call:
                    for program, (used_s, _) in usage.shares.items():
                        shares[program].append(used_s)
    print(f"| | Median of {rounds} | Least | CPU until then |\n| --- | ---: | ---: | ---: |")
    for name, times in seconds.items():
        median, until = statistics.median(times), statistics.median(cpu[name])
        print(f"| {name} | {median:.2f} s | {min(times):.2f} s | {until:.2f} s |")
    print("\n| Process of `gpo run` | CPU, whole run |\n| --- | ---: |")
    for program, used in sorted(shares.items(), key=lambda item: -statistics.median(item[1])):
        print(f"| {program} | {statistics.median(used):.2f} s |")
    return 0


def _measured(command: Command, folder: Path) -> tuple[Usage, float]:
    """What the command used, and the seconds until its end or its first call."""
    log = folder / "access.jsonl"
    with EndpointProcess(log, *_WORKLOAD.endpoint_options) as endpoint:
        config = write_configuration(folder, _WORKLOAD, endpoint.base_url)
        words = command.words(config, folder / "results")
        env = {"PYTHONPATH": str(ROOT)}
        usage = measure_usage(words, cwd=folder, output=folder / "output.txt", env=env, timeout_s=300)
    seen = traffic(read_log(log)) if command.until_first_call else None
    return usage, (seen.first_s if seen else usage.ended_s) - usage.started_s


if __name__ == "__main__":
    sys.exit(main())
