"""How the program scales with trajectories and replicas: ``python -m benchmarks.scaling [OPTIONS]``.

Endpoints with 200 ms of latency and a limit of 128; ``benchmarks/README.md`` defines the columns.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.measuring.endpoint_process import ROOT
from benchmarks.measuring.ours import Load, subject
from benchmarks.measuring.outcome import Outcome, append_line, measured, working_folder
from benchmarks.measuring.tables import CALLS, COST, NAME, PROCESSES, SPEED, table, write_between

_LIMIT = 128
# About as many calls in each row, as far as a single trajectory allows.
_STEPS = {1: 16, 4: 8, 16: 3, 64: 1}
TRAJECTORIES: dict[str, Load] = {
    str(number): Load(name=f"{number} trajectories", trajectories=number, steps=steps, limit=_LIMIT)
    for number, steps in _STEPS.items()
}
REPLICAS: dict[str, Load] = {
    f"replicas-{number}": Load(
        name=f"16 trajectories, {number} replicas",
        trajectories=16,
        steps=_STEPS[16],
        limit=_LIMIT,
        sections={"cluster": {"evaluator_replicas": number}},
    )
    for number in (1, 2, 4)
}
HELD: dict[str, Load] = {
    f"held-{per_actor}": Load(
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
    """Print the tables, and write them where asked; 0 when every run came to its end."""
    settings = _parser().parse_args(arguments)
    every = {key: load for loads, _ in TABLES.values() for key, load in loads.items()}
    chosen = settings.only or list(every)
    outcomes: dict[str, Outcome] = {}
    with working_folder(settings.folder) as folder:
        for key in chosen:
            print(f"{key} ...", file=sys.stderr, flush=True)
            load = replace(every[key], steps=1) if settings.quick else every[key]
            outcomes[key] = measured(subject(load, settings.settings), folder / key)
            append_line(folder / "outcomes.jsonl", outcomes[key])
            print(json.dumps({"shares": outcomes[key].shares}), file=sys.stderr, flush=True)
    for name, (loads, columns) in TABLES.items():
        rows = [outcomes[key] for key in loads if key in outcomes]
        if rows:
            text = table(rows, *columns)
            print(f"{text}\n")
            if settings.write:
                write_between(ROOT / "benchmarks" / "README.md", name, text)
    return 1 if any(outcome.failure for outcome in outcomes.values()) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    names = [*TRAJECTORIES, *REPLICAS, *HELD]
    add = parser.add_argument
    add("--only", nargs="+", choices=names, metavar="NAME", help=f"rows to measure, out of {', '.join(names)}")
    add("--quick", action="store_true", help="one step each: shows that it works; start-up dominates the figures")
    add("--folder", type=Path, help="keep configurations, results, logs and outcomes.jsonl here")
    add("--set", action="append", default=[], dest="settings", metavar="a.b=c", help="for every gpo run")
    add("--write", action="store_true", help="put the tables into benchmarks/README.md")
    return parser


if __name__ == "__main__":
    sys.exit(main())
