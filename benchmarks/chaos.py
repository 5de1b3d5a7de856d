"""What a run loses when its processes die: ``python -m benchmarks.chaos [OPTIONS]``.

Starts a simulated endpoint and ``gpo run`` for each run, and kills parts of the run (SIGKILL) at random times that a
seed determines. The results are compared with those of an undisturbed run; ``benchmarks/README.md`` has the details.
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

from benchmarks.measuring.chaos_run import (
    UNDISTURBED,
    ChaosRun,
    Size,
    append_row,
    read_results,
    read_rows,
    run_with_kills,
)
from benchmarks.measuring.commands import CommandRunner, exit_on_sigterm
from benchmarks.measuring.kills import Kills, Part, Plan, every_few_seconds
from benchmarks.measuring.measurement import working_folder
from benchmarks.measuring.servers import ROOT
from benchmarks.measuring.tables import write_between

PARTS, DRIVER, EMBEDDED = "a part every few seconds", "the driver, then --resume", "the embedded model"
EVERY_S = (2.0, 6.0)
SIZE = Size()
_PAUSES_S = (0.0, 20.0)
_ANY = (Part.ACTOR, Part.REPLICA, Part.CONTROLLER, Part.LIMITER)
_ENOUGH_KILLS = 60
"""With this many kills, each of the four parts is hit almost certainly."""
_EARLY, _EARLY_S = 0.2, 10.0
"""The probability that a driver is killed during its start, and the duration of the start."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, and write it if asked; return 0 if every run had the same results as without kills."""
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


def never_killed(rows: Sequence[ChaosRun]) -> list[Part]:
    """Parts that were never killed in the scenario ``PARTS``; empty if there were few kills."""
    kills = sum((Counter(row.kills) for row in rows if row.scenario == PARTS), Counter[str]())
    return [part for part in _ANY if part not in kills] if kills.total() >= _ENOUGH_KILLS else []


def _undisturbed(folder: Path) -> dict[str, Any]:
    """The number of calls and the results of an undisturbed run; determined once per folder."""
    known = folder / "undisturbed.json"
    if not known.exists():
        path = folder / "undisturbed"
        row = run_with_kills(path, UNDISTURBED, 0, lambda _: Plan([]), None, size=SIZE)
        if not row.is_good:
            raise SystemExit(f"the undisturbed run failed: {row}")
        known.write_text(
            json.dumps({"calls": row.num_calls, "results": read_results(path / "results")}), encoding="utf-8"
        )
        append_row(folder / "chaos.jsonl", row)
    reference: dict[str, Any] = json.loads(known.read_text(encoding="utf-8"))
    return reference


def _run(folder: Path, scenario: str, seed: int, reference: dict[str, Any]) -> ChaosRun:
    if scenario == EMBEDDED:
        return _embedded(folder / f"embedded-{seed}", seed)
    if scenario == DRIVER:
        return _driver(folder / f"driver-{seed}", seed, reference)
    return run_with_kills(
        folder / f"parts-{seed}",
        PARTS,
        seed,
        lambda draw: every_few_seconds(draw, *EVERY_S),
        reference["results"],
        size=SIZE,
    )


def _driver(folder: Path, seed: int, reference: dict[str, Any]) -> ChaosRun:
    def plan(draw: Random) -> Plan:
        # Count calls instead of seconds, since the speed of a run depends on the machine.
        if draw.random() < _EARLY:
            return Plan([(draw.uniform(0.0, _EARLY_S), Part.DRIVER)], first=0)
        return Plan([(0.0, Part.DRIVER)], first=draw.randrange(reference["calls"]))

    return run_with_kills(folder, DRIVER, seed, plan, reference["results"], size=SIZE, pauses_s=_PAUSES_S)


def _embedded(path: Path, seed: int) -> ChaosRun:
    """A small quickstart whose embedded model server is killed three times. Its replies are not reproducible."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    settings = {
        "optimizer.steps": 1,
        "run.seeds": [0],
        "evaluation.val_size": 12,
        "evaluation.test_size": 12,
        "cache.path": path / "completions.sqlite",
        "cluster.actor_restarts": 100,
    }
    command = [sys.executable, "-m", "cluster.cli", "run", str(ROOT / "configs" / "quickstart.yaml")]
    command += ["--run-dir", str(path / "results")]
    command += [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    draw, runner = Random(seed), CommandRunner()
    results = path / "results" / "config.yaml"
    # There is no access log of its calls, so the time counts from the start of the run.
    plan = Plan([(draw.uniform(10.0, 20.0), Part.MODEL) for _ in range(3)], first=1, least=0)
    kills = Kills(plan, draw, lambda: int(results.exists()))
    started_s = monotonic()
    attempt = runner.run(command, kills, cwd=path, output=path / "output.txt", env={"PYTHONPATH": str(ROOT)})
    runner.wait_until_gone(30.0)
    (left,) = runner.kill_remaining()
    summary = json.loads((path / "results" / "summary.json").read_text(encoding="utf-8"))
    return ChaosRun(
        scenario=EMBEDDED,
        seed=seed,
        attempts=1,
        code=attempt.code,
        status=summary["status"],
        is_same=True,
        kills={Part.MODEL: len(kills.done)},
        wall_s=attempt.ended_s - started_s,
        left=left,
    )


def _report(folder: Path, row: ChaosRun) -> None:
    append_row(folder / "chaos.jsonl", row)
    print(row, file=sys.stderr, flush=True)


def table(rows: Sequence[ChaosRun]) -> str:
    """A Markdown table with one row per scenario, and how long processes outlived their killed driver."""
    scenarios = [scenario for scenario in (PARTS, DRIVER, EMBEDDED) if any(row.scenario == scenario for row in rows)]
    kinds = [kind for kind in Part if any(kind in row.kills for row in rows)]
    header = ["Killed", "Runs", "Completed", "Same results", *(f"{kind}s killed" for kind in kinds)]
    header += [
        "Task calls answered",
        "Repeated: in flight",
        "not yet written",
        "unexplained",
        "Optimizer calls: unexplained",
    ]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    lines += [_cells([row for row in rows if row.scenario == scenario], kinds) for scenario in scenarios]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    latest_s = max((row.task.latest_s for row in rows if row.task), default=0.0)
    if latest_s:
        text += f"\n\nAnswers not yet written arrived at most {latest_s:.2f} s before a process ended."
    orphaned = [row for row in rows if row.orphans_s is not None]
    if orphaned:
        longest_s = max(row.orphans_s or 0.0 for row in orphaned)
        text += (
            f"\n\nActors and replicas outlived their killed driver by at most {longest_s:.1f} s and began "
            f"{sum(row.orphaned_calls for row in orphaned):,} calls in that time, in all these runs."
        )
    return text


def _cells(rows: Sequence[ChaosRun], kinds: Sequence[Part]) -> list[str]:
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
    add("--runs", type=int, default=20, help="runs in which a part is killed every few seconds (default: 20)")
    add("--drivers", type=int, default=10, help="runs whose driver is killed at a random time (default: 10)")
    add("--embedded", type=int, default=1, help="runs whose embedded model server is killed (default: 1)")
    add("--seed", type=int, default=0, help="seed of the first run of each kind; the next runs use the next seeds")
    add("--folder", type=Path, help="keep everything here; runs in its chaos.jsonl are not repeated")
    add("--write", action="store_true", help="write the table into benchmarks/README.md")
    return parser


if __name__ == "__main__":
    exit_on_sigterm()
    sys.exit(main())
