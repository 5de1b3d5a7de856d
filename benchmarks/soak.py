"""Whether anything grows in a long run: ``python -m benchmarks.soak [OPTIONS]``.

Runs ``gpo run`` with 64 calls at once on a simulated endpoint, weighs its processes after two minutes and after ten,
and then ends it as Ctrl-C does. ``benchmarks/README.md`` says what is called flat.
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
from benchmarks.measuring.endpoint_process import ROOT, EndpointProcess
from benchmarks.measuring.family import Member
from benchmarks.measuring.kills import Part, part, part_of
from benchmarks.measuring.ours import NUM_PER_LABEL, Load, command, write_configuration
from benchmarks.measuring.outcome import working_folder
from benchmarks.measuring.sitting import Household, end_on_sigterm
from benchmarks.measuring.tables import write_between
from benchmarks.measuring.weighing import Holding, Tolerance, growths, weigh

CENSUS = ROOT / "benchmarks" / "measuring" / "census"
LOAD = Load(name="soak", trajectories=8, steps=100_000, limit=64, sections={"metrics": {"port": 0, "linger_s": 0}})
PARTS = frozenset(Part) - {Part.MODEL}
"""What has to be there, both times."""
_LONGEST_LEFT_S = 30.0
_EXAMPLES = 4 * NUM_PER_LABEL["val"]
_PROMPT_BYTES = 20_000
"""What a scored prompt takes in its trajectory's actor: 9 kB for it and its 100 scores, and twice that with the copies
that are made whenever it is saved."""
_MEGABYTE = 1_000_000


class Soak:
    """Weighs the processes of a command at some moments, and interrupts it after the last.

    Args:
        moments_s: after the first call of a model.
        log: of the endpoint.
        census: folder in which the processes count their tasks.

    Attributes:
        weighings: one per moment that has come: process number → what it held.
        answered: calls of a model by then.
    """

    def __init__(self, moments_s: Sequence[float], log: Path, census: Path) -> None:
        self._moments_s, self._answered, self._census = list(moments_s), AnsweredCalls(log), census
        self._begun_s: float | None = None
        self.weighings: list[dict[int, Holding]] = []
        self.answered: list[int] = []

    def look(self, now_s: float, members: Sequence[Member]) -> None:
        """Weigh the members if it is time to."""
        if self._begun_s is None:
            self._begun_s = now_s if self._answered() else None
        elif len(self.weighings) < len(self._moments_s) and (
            now_s - self._begun_s >= self._moments_s[len(self.weighings)]
        ):
            self.weighings.append(weigh(members, self._census))
            self.answered.append(self._answered())
            print(f"weighed {len(members)} processes after {now_s - self._begun_s:.0f} s", file=sys.stderr, flush=True)
            if len(self.weighings) == len(self._moments_s):
                (driver,) = [member for member in members if part(member) is Part.DRIVER]
                os.killpg(driver.pid, signal.SIGINT)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, and write it where asked; 0 when everything was flat and nothing was left at the end."""
    settings = _parser().parse_args(arguments)
    with working_folder(settings.folder) as folder:
        census, log = folder / "census", folder / "access.jsonl"
        census.mkdir(exist_ok=True)
        moments_s, household = [60 * minutes for minutes in settings.minutes], Household()
        with EndpointProcess(log, *LOAD.endpoint_options) as endpoint:
            config = write_configuration(folder, LOAD, endpoint.base_url)
            soak = Soak(moments_s, log, census)
            sitting = household.sit(
                command(config, folder / "results"),
                soak,
                cwd=folder,
                output=folder / "output.txt",
                env={"PYTHONPATH": f"{CENSUS}{os.pathsep}{ROOT}", "BENCHMARK_CENSUS_FOLDER": str(census)},
                timeout_s=moments_s[-1] + 180.0,
            )
            left_s = household.linger(_LONGEST_LEFT_S)
        (left,), seen = household.clear(), traffic(read_log(log))
        (folder / "weighings.json").write_text(
            json.dumps([{pid: asdict(held) for pid, held in weighing.items()} for weighing in soak.weighings]), "utf-8"
        )
    if len(soak.weighings) < len(moments_s) or seen is None:
        print(f"the run ended early, with exit code {sitting.code}", file=sys.stderr)
        return 1
    prompts = (soak.answered[-1] - soak.answered[0]) // _EXAMPLES
    text, is_flat = table(soak.weighings[0], soak.weighings[-1], settings.minutes, prompts)
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
    before: dict[int, Holding], after: dict[int, Holding], minutes: Sequence[float], prompts: int = 0
) -> tuple[str, bool]:
    """A Markdown table, one row for each process that was there both times; and whether all of them are flat.

    Actors of trajectories keep every prompt that was scored, of which there are so many more the second time.

    They are not flat where one of ``PARTS`` is missing, or one came or went: what a process held that is no more is
    unknown.
    """
    when = f"minute {minutes[0]:g} → {minutes[-1]:g}"
    header = ["Process", f"Memory of its own, {when}", "RSS", "Threads", "Files", "of them sockets", "Tasks", "Flat"]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    both = [pid for pid in before.keys() & after.keys() if before[pid].program == after[pid].program]
    is_flat = True
    for pid in sorted(both, key=lambda pid: -after[pid].own):
        then, now = before[pid], after[pid]
        remembered = prompts * _PROMPT_BYTES if part_of(now.program) is Part.ACTOR else 0
        grown = growths(then, now, Tolerance(), LOAD.limit, remembered=remembered)
        is_flat = is_flat and not grown
        sizes = [
            f"{getattr(then, name) / _MEGABYTE:,.1f} → {getattr(now, name) / _MEGABYTE:,.1f} MB"
            for name in ("own", "rss")
        ]
        counts = [f"{getattr(then, name)} → {getattr(now, name)}" for name in ("threads", "files", "sockets")]
        tasks = "–" if now.tasks is None else f"{then.tasks} → {now.tasks}"
        lines.append([now.program, *sizes, *counts, tasks, "no: " + ", ".join(grown) if grown else "yes"])
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    changed = sorted(held.program for when in (before, after) for pid, held in when.items() if pid not in both)
    restless = [program for program in changed if part_of(program)]
    missing = sorted(PARTS - {part_of(before[pid].program) for pid in both})
    for words, names in (("Came or went between the two", changed), ("Never weighed twice", missing)):
        text += f"\n\n{words}: {', '.join(names)}." if names else ""
    return text, is_flat and not restless and not missing


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    add = parser.add_argument
    add("--minutes", type=float, nargs="+", default=[2.0, 10.0], help="when to weigh (default: 2 10)")
    add("--folder", type=Path, help="keep everything here")
    add("--write", action="store_true", help="put the table into benchmarks/README.md")
    return parser


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(main())
