"""What a run loses when its processes die: ``python -m benchmarks.chaos [OPTIONS]``.

Starts a simulated endpoint for each run, ``gpo run`` against it as a process, and kills parts of the run (SIGKILL) at
random moments that a seed decides. Each run is held against one that nobody disturbed; ``benchmarks/README.md`` says
how.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

from benchmarks.measuring.disturbed import UNDISTURBED, Disturbed, Size, append_row, disturbed, found, read_rows
from benchmarks.measuring.endpoint_process import ROOT
from benchmarks.measuring.kills import Kills, Part, Plan, every_few_seconds
from benchmarks.measuring.outcome import working_folder
from benchmarks.measuring.sitting import Household, end_on_sigterm
from benchmarks.measuring.tables import write_between

PARTS, DRIVER, EMBEDDED = "a part every few seconds", "the driver, then --resume", "the embedded model"
EVERY_S = (2.0, 6.0)
SIZE = Size()
_PAUSES_S = (0.0, 20.0)
_ANY = (Part.ACTOR, Part.REPLICA, Part.CONTROLLER, Part.LIMITER)
_ENOUGH_KILLS = 60
"""Each of the four has the same chance: chance alone spares one of them once in millions of times."""
_EARLY, _EARLY_S = 0.2, 10.0
"""Chance that a driver is killed while it starts, and how long that takes."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, and write it where asked; 0 when every run ended as if nothing had happened."""
    settings = _parser().parse_args(arguments)
    with working_folder(settings.folder) as folder:
        reference = _undisturbed(folder) if settings.runs or settings.drivers else {}
        known = {(row.scenario, row.seed) for row in read_rows(folder / "chaos.jsonl")}
        for scenario, number in ((PARTS, settings.runs), (DRIVER, settings.drivers), (EMBEDDED, settings.embedded)):
            for seed in range(settings.seed, settings.seed + number):
                if (scenario, seed) not in known:
                    _report(folder, _run(folder, scenario, seed, reference))
        rows = read_rows(folder / "chaos.jsonl")
    text = table(rows)
    print(text)
    if settings.write:
        write_between(ROOT / "benchmarks" / "README.md", "chaos", text)
    if spared := never_killed(rows):
        print(f"never killed: {', '.join(spared)}", file=sys.stderr)
    return 0 if all(row.is_good for row in rows) and not spared else 1


def never_killed(rows: Sequence[Disturbed]) -> list[Part]:
    """Parts that should have died in "a part every few seconds" and never did; none where there were few kills."""
    kills = sum((Counter(row.kills) for row in rows if row.scenario == PARTS), Counter[str]())
    return [part for part in _ANY if part not in kills] if kills.total() >= _ENOUGH_KILLS else []


def _undisturbed(folder: Path) -> dict[str, Any]:
    """How many calls the search makes, and what it finds, when it is left alone; found out once for a folder."""
    known = folder / "undisturbed.json"
    if not known.exists():
        place = folder / "undisturbed"
        row = disturbed(place, UNDISTURBED, 0, lambda _: Plan([]), None, size=SIZE)
        if not row.is_good:
            raise SystemExit(f"the run that nobody disturbs failed: {row}")
        known.write_text(json.dumps({"calls": row.num_calls, "found": found(place / "results")}), encoding="utf-8")
        append_row(folder / "chaos.jsonl", row)
    reference: dict[str, Any] = json.loads(known.read_text(encoding="utf-8"))
    return reference


def _run(folder: Path, scenario: str, seed: int, reference: dict[str, Any]) -> Disturbed:
    if scenario == EMBEDDED:
        return _embedded(folder / f"embedded-{seed}", seed)
    if scenario == DRIVER:
        return _driver(folder / f"driver-{seed}", seed, reference)
    return disturbed(
        folder / f"parts-{seed}",
        PARTS,
        seed,
        lambda draw: every_few_seconds(draw, *EVERY_S),
        reference["found"],
        size=SIZE,
    )


def _driver(folder: Path, seed: int, reference: dict[str, Any]) -> Disturbed:
    def plan(draw: Random) -> Plan:
        # Not by the clock: how long a run takes to get anywhere is another time on every machine.
        if draw.random() < _EARLY:
            return Plan([(draw.uniform(0.0, _EARLY_S), Part.DRIVER)], first=0)
        return Plan([(0.0, Part.DRIVER)], first=draw.randrange(reference["calls"]))

    return disturbed(folder, DRIVER, seed, plan, reference["found"], size=SIZE, pauses_s=_PAUSES_S)


def _embedded(place: Path, seed: int) -> Disturbed:
    """The quickstart in small, whose model's server dies three times. Its replies are not the same every time."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    settings = {
        "optimizer.steps": 1,
        "run.seeds": [0],
        "evaluation.val_size": 12,
        "evaluation.test_size": 12,
        "cache.path": place / "completions.sqlite",
        "cluster.actor_restarts": 100,
    }
    command = [sys.executable, "-m", "cluster.cli", "run", str(ROOT / "configs" / "quickstart.yaml")]
    command += ["--run-dir", str(place / "results")]
    command += [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    draw, household = Random(seed), Household()
    results = place / "results" / "config.yaml"
    # Its calls are in nobody's log: the time runs from when the run has begun.
    plan = Plan([(draw.uniform(10.0, 20.0), Part.MODEL) for _ in range(3)], first=1, least=0)
    kills = Kills(plan, draw, lambda: int(results.exists()))
    started_s = monotonic()
    sitting = household.sit(command, kills, cwd=place, output=place / "output.txt", env={"PYTHONPATH": str(ROOT)})
    household.linger(30.0)
    (left,) = household.clear()
    summary = json.loads((place / "results" / "summary.json").read_text(encoding="utf-8"))
    return Disturbed(
        scenario=EMBEDDED,
        seed=seed,
        sittings=1,
        code=sitting.code,
        status=summary["status"],
        is_same=True,
        kills={Part.MODEL: len(kills.done)},
        wall_s=sitting.ended_s - started_s,
        left=left,
    )


def _report(folder: Path, row: Disturbed) -> None:
    append_row(folder / "chaos.jsonl", row)
    print(row, file=sys.stderr, flush=True)


def table(rows: Sequence[Disturbed]) -> str:
    """A Markdown table, one row for each scenario, and what drivers left behind that were killed."""
    scenarios = [scenario for scenario in (PARTS, DRIVER, EMBEDDED) if any(row.scenario == scenario for row in rows)]
    kinds = [kind for kind in Part if any(kind in row.kills for row in rows)]
    header = ["Killed", "Runs", "Completed", "Same results", *(f"{kind}s killed" for kind in kinds)]
    header += ["Task calls answered", "Repeated: in flight", "not yet written", "beyond", "Optimizer calls: beyond"]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    lines += [_cells([row for row in rows if row.scenario == scenario], kinds) for scenario in scenarios]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    latest_s = max((row.task.latest_s for row in rows if row.task), default=0.0)
    if latest_s:
        text += f"\n\nThe answers that were not yet written came at most {latest_s:.2f} s before a process ended."
    orphaned = [row for row in rows if row.orphans_s is not None]
    if orphaned:
        longest_s = max(row.orphans_s or 0.0 for row in orphaned)
        text += (
            f"\n\nActors and replicas lived on for at most {longest_s:.1f} s after their driver was killed, and began "
            f"{sum(row.orphaned_calls for row in orphaned):,} calls in that time, all of these runs together."
        )
    return text


def _cells(rows: Sequence[Disturbed], kinds: Sequence[Part]) -> list[str]:
    known = [row.task for row in rows if row.task is not None]
    counts = [sum(row.num_calls for row in rows), *(sum(getattr(task, name) for task in known) for name in _REPEATS)]
    counts.append(sum(row.optimizer.beyond for row in rows if row.optimizer is not None))
    return [
        rows[0].scenario,
        str(len(rows)),
        str(sum(row.code == 0 and row.status == "completed" for row in rows)),
        str(sum(row.is_same for row in rows)) if known else "–",
        *(str(sum(row.kills.get(kind, 0) for row in rows)) for kind in kinds),
        *(f"{count:,}" if known else "–" for count in counts),
    ]


_REPEATS = ("in_flight", "unwritten", "beyond")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    add = parser.add_argument
    add("--runs", type=int, default=20, help="runs of which a part is killed every few seconds (default: 20)")
    add("--drivers", type=int, default=10, help="runs whose driver is killed at a random moment (default: 10)")
    add("--embedded", type=int, default=1, help="runs on the embedded model whose server is killed (default: 1)")
    add("--seed", type=int, default=0, help="of the first run of each kind; the others count on from it")
    add("--folder", type=Path, help="keep everything here; a run that its chaos.jsonl holds is not made again")
    add("--write", action="store_true", help="put the table into benchmarks/README.md")
    return parser


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(main())
