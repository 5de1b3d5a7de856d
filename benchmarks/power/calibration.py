"""How often the interval of the best prompt contains its true score: ``python -m benchmarks.power.calibration``.

Runs finished searches on the simulated tasks of ``benchmarks.power`` and compares the interval that a run prints for
the best prompt's score on new examples, which allows for the choice of the prompt, with the true score. The interval of
the plain mean on ``val`` stands beside it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from benchmarks.power.searches import METHODS, finished_search
from benchmarks.power.structures import STRUCTURES, Structure, StructuredTask
from gpo.intervals import interval
from gpo.scoring.generalization import expected_of_best

_PROGRESS_S = 3.0


class Found(NamedTuple):
    """What a search says about its best prompt, less the truth."""

    is_covered: bool
    is_covered_by_plain: bool
    bias: float
    optimism: float
    width: float


def found(method: str, structure: Structure, steps: int, seed: int) -> Found:
    """Run a search to its end."""
    task = StructuredTask(structure, seed)
    search = finished_search(METHODS[method], task, steps)
    true, best, expected = task.true_score(search.best.prompt.text), search.best.score, expected_of_best(search)
    low, high = interval(best)
    return Found(
        expected.low <= true <= expected.high,
        low <= true <= high,
        expected.mean - true,
        best.mean - true,
        expected.high - expected.low,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a Markdown table with a row for each structure and one for all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.power.calibration", description=__doc__)
    parser.add_argument("--seeds", type=int, default=84, help="searches for each structure")
    parser.add_argument("--steps", type=int, default=12, help="steps of a search")
    parser.add_argument("--method", choices=METHODS, default="efficient")
    settings = parser.parse_args(arguments)
    print("| Structure | Searches | Covered | Bias | Width | Covered by the plain interval | Optimism of val |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    every: list[Found] = []
    said = time.monotonic()
    for name, structure in STRUCTURES.items():
        rows = []
        for seed in range(settings.seeds):
            rows.append(found(settings.method, structure, settings.steps, seed))
            if time.monotonic() - said > _PROGRESS_S:
                said = time.monotonic()
                print(f"{name}: {seed + 1} of {settings.seeds} searches", file=sys.stderr, flush=True)
        print(_row(name, rows), flush=True)
        every += rows
    print(_row("all", every))
    return 0


def _row(name: str, rows: Sequence[Found]) -> str:
    covered, plain, bias, optimism, width = (fmean(column) for column in zip(*rows, strict=True))
    return (
        f"| {name} | {len(rows)} | {100 * covered:.0f} % | {100 * bias:+.1f} | {100 * width:.1f} | {100 * plain:.0f} % "
        f"| {100 * optimism:+.1f} |"
    )


if __name__ == "__main__":
    sys.exit(main())
