"""How busy a search keeps its endpoint, and at what cost: ``python -m benchmarks.saturation [OPTIONS]``.

Starts a simulated endpoint for each row, runs ``gpo run`` (or a peer's script) against it, and prints Markdown tables.
``benchmarks/README.md`` defines the columns.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.measuring.measurement import Subject, benchmark_parser, measure_all
from benchmarks.measuring.servers import ROOT
from benchmarks.measuring.subjects import PEERS, Workload, peer_subject, subject
from benchmarks.measuring.tables import CALLS, COST, NAME, REFUSALS, SCORES, SPEED, table, write_between

ONE = Workload(name="ours, 1 trajectory", trajectories=1, steps=12)
OURS: dict[str, Workload] = {
    "one": ONE,
    "four": Workload(name="ours, 4 trajectories", trajectories=4, steps=3),
    "efficient": Workload(name="ours, 4 trajectories, efficient", trajectories=4, steps=30, preset="efficient"),
    "sixteen": Workload(name="ours, 16 trajectories, limit 128", trajectories=16, steps=3, limit=128),
    "eight": Workload(name="ours, 8 trajectories", trajectories=8, steps=2),
}
FAULTS: dict[str, Workload] = {
    "faults": Workload(
        name="ours, 4 trajectories, concurrency 64 and 5 % errors",
        trajectories=4,
        steps=4,
        max_concurrency=64,
        error_rate=0.05,
    ),
}
QUICK_STEPS = 1
_EQUAL_STEPS = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, and write them if asked; return 0 if all our own runs completed."""
    parser = benchmark_parser("saturation", __doc__, [*OURS, *FAULTS, *PEERS])
    parser.add_argument(
        "--peers-python",
        type=Path,
        metavar="PATH",
        help="Python that has the peers (see `make bench-peers`); without it, only peers named by --only run",
    )
    settings = parser.parse_args(arguments)
    chosen = settings.only or [*OURS, *FAULTS, *(PEERS if settings.peers_python else ())]
    measurements = measure_all(chosen, lambda key: _subject(key, settings), settings.folder)
    speed = [measurements[key] for key in (*OURS, *PEERS) if key in measurements]
    faults = [measurements[key] for key in FAULTS if key in measurements]
    tables = {
        "saturation": table(speed, NAME, SPEED, CALLS, COST, SCORES) if speed else "",
        "faults": table(faults, NAME, SPEED, CALLS, REFUSALS) if faults else "",
    }
    print("\n\n".join(filter(None, tables.values())))
    if settings.write:
        _write(tables)
    return 1 if any(measurements[key].failure for key in (*OURS, *FAULTS) if key in measurements) else 0


def _subject(key: str, settings: argparse.Namespace) -> Subject:
    steps = QUICK_STEPS if settings.quick else None
    if key in PEERS:
        return peer_subject(PEERS[key], settings.peers_python, ONE, steps=steps or _EQUAL_STEPS)
    workload = {**OURS, **FAULTS}[key]
    return subject(replace(workload, steps=steps or workload.steps), settings.settings)


def _write(tables: dict[str, str]) -> None:
    for name, text in tables.items():
        if text:
            write_between(ROOT / "benchmarks" / "README.md", name, text)


if __name__ == "__main__":
    sys.exit(main())
