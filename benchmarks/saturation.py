"""How busy a search keeps its endpoint, and at what cost: ``python -m benchmarks.saturation [OPTIONS]``.

Starts a simulated endpoint for each row, runs ``gpo run`` (or a peer's script) against it as a process, and prints
Markdown tables. ``benchmarks/README.md`` defines the columns.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.measuring.endpoint_process import ROOT
from benchmarks.measuring.ours import Load, subject
from benchmarks.measuring.outcome import Outcome, Subject, append_line, measured, working_folder
from benchmarks.measuring.peers import PEERS, peer_subject
from benchmarks.measuring.tables import CALLS, COST, NAME, REFUSALS, SCORES, SPEED, table, write_between

ONE = Load(name="ours, 1 trajectory", trajectories=1, steps=12)
OURS: dict[str, Load] = {
    "one": ONE,
    "four": Load(name="ours, 4 trajectories", trajectories=4, steps=3),
    "sixteen": Load(name="ours, 16 trajectories, limit 128", trajectories=16, steps=3, limit=128),
    "eight": Load(name="ours, 8 trajectories", trajectories=8, steps=2),
}
FAULTS: dict[str, Load] = {
    "faults": Load(
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
    """Print the tables, and write them where asked; 0 when everything of ours ran to its end."""
    settings = _parser().parse_args(arguments)
    chosen = settings.only or [*OURS, *FAULTS, *(PEERS if settings.peers_python else ())]
    outcomes: dict[str, Outcome] = {}
    with working_folder(settings.folder) as folder:
        for key in chosen:
            print(f"{key} ...", file=sys.stderr, flush=True)
            outcomes[key] = measured(_subject(key, settings), folder / key)
            append_line(folder / "outcomes.jsonl", outcomes[key])
    speed = [outcomes[key] for key in (*OURS, *PEERS) if key in outcomes]
    faults = [outcomes[key] for key in FAULTS if key in outcomes]
    tables = {
        "saturation": table(speed, NAME, SPEED, CALLS, COST, SCORES),
        "faults": table(faults, NAME, SPEED, CALLS, REFUSALS),
    }
    print("\n\n".join(text for name, text in tables.items() if {"saturation": speed, "faults": faults}[name]))
    if settings.write:
        _write(tables, speed, faults)
    return 1 if any(outcomes[key].failure for key in (*OURS, *FAULTS) if key in outcomes) else 0


def _subject(key: str, settings: argparse.Namespace) -> Subject:
    steps = QUICK_STEPS if settings.quick else None
    if key in PEERS:
        return peer_subject(PEERS[key], settings.peers_python, ONE, steps=steps or _EQUAL_STEPS)
    load = {**OURS, **FAULTS}[key]
    return subject(replace(load, steps=steps or load.steps), settings.settings)


def _write(tables: dict[str, str], speed: Sequence[Outcome], faults: Sequence[Outcome]) -> None:
    if speed:
        write_between(ROOT / "benchmarks" / "README.md", "saturation", tables["saturation"])
    if faults:
        write_between(ROOT / "benchmarks" / "README.md", "faults", tables["faults"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.saturation", description=__doc__)
    add = parser.add_argument
    names = [*OURS, *FAULTS, *PEERS]
    add("--only", nargs="+", choices=names, metavar="NAME", help=f"rows to measure, out of {', '.join(names)}")
    add("--quick", action="store_true", help="one step each: shows that it works; start-up dominates the figures")
    add("--folder", type=Path, help="keep configurations, results, logs and outcomes.jsonl here")
    add("--set", action="append", default=[], dest="settings", metavar="a.b=c", help="for every gpo run")
    add("--write", action="store_true", help="put the tables into benchmarks/README.md")
    add(
        "--peers-python",
        type=Path,
        metavar="PATH",
        help="Python that has the peers (`make bench-peers`); without it, they are left out unless named by --only",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
