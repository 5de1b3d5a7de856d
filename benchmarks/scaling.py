"""How the program scales with trajectories and replicas: ``python -m benchmarks.scaling [OPTIONS]``.

Endpoints with 200 ms of latency and a limit of 128; ``benchmarks/README.md`` defines the columns.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace

from benchmarks.measuring.measurement import benchmark_parser, measure_all
from benchmarks.measuring.servers import ROOT
from benchmarks.measuring.subjects import Workload, subject
from benchmarks.measuring.tables import CALLS, COST, NAME, PROCESSES, SPEED, table, write_between

_LIMIT = 128
# Roughly equal numbers of calls in each row, as far as a single trajectory allows.
_STEPS = {1: 16, 4: 8, 16: 3, 64: 1}
TRAJECTORIES: dict[str, Workload] = {
    str(number): Workload(name=f"{number} trajectories", trajectories=number, steps=steps, limit=_LIMIT)
    for number, steps in _STEPS.items()
}
REPLICAS: dict[str, Workload] = {
    f"replicas-{number}": Workload(
        name=f"16 trajectories, {number} replicas",
        trajectories=16,
        steps=_STEPS[16],
        limit=_LIMIT,
        sections={"cluster": {"evaluator_replicas": number}},
    )
    for number in (1, 2, 4)
}
HELD: dict[str, Workload] = {
    f"held-{per_actor}": Workload(
        name=f"1,000 trajectories, {per_actor:,} in an actor",
        trajectories=1000,
        steps=1,
        limit=_LIMIT,
        sections={
            "cluster": {"trajectories_per_actor": per_actor},
            "optimizer": {"candidates": 2},
            "evaluation": {"val_size": 3, "test_size": 3},
        },
    )
    for per_actor in (100, 250, 1000)
}
TABLES = {
    "scaling": (TRAJECTORIES, (NAME, SPEED, CALLS, COST)),
    "replicas": (REPLICAS, (NAME, SPEED, CALLS, COST)),
    "held": (HELD, (NAME, {title: SPEED[title] for title in ("Wall time", "Busy")}, CALLS, COST, PROCESSES)),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, and write them if asked; return 0 if all runs completed."""
    settings = benchmark_parser("scaling", __doc__, [*TRAJECTORIES, *REPLICAS, *HELD]).parse_args(arguments)
    workloads = {**TRAJECTORIES, **REPLICAS, **HELD}
    if settings.quick:
        workloads = {key: replace(workload, steps=1) for key, workload in workloads.items()}
    measurements = measure_all(
        settings.only or list(workloads), lambda key: subject(workloads[key], settings.settings), settings.folder
    )
    for key, measurement in measurements.items():
        print(json.dumps({key: measurement.shares}), file=sys.stderr)
    for name, (rows, columns) in TABLES.items():
        measured = [measurements[key] for key in rows if key in measurements]
        if measured:
            text = table(measured, *columns)
            print(f"{text}\n")
            if settings.write:
                write_between(ROOT / "benchmarks" / "README.md", name, text)
    return 1 if any(measurement.failure for measurement in measurements.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
