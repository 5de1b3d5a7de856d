"""What recorded answers cost: ``python -m benchmarks.answers [--answers N]``.

First, it writes the folder of a run with so many answers (``record.answers: all``), as trajectories do, and opens it in
``gpo view`` and in ``gpo report``. Then it measures the CPU time of a search against the simulated endpoint, with and
without recording, in turns.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import httpx2

import gpo
from actors.answers import AnswerLog
from actors.checkpoints import CheckpointStore
from actors.folder import Folder
from actors.search import SearchKey
from benchmarks.measuring.servers import EndpointProcess
from benchmarks.simulated.domains import DOMAINS, make_task, splits
from benchmarks.simulated.landscape import TICKETS
from cluster.results.answers import encoded_examples, examples_name
from cluster.results.outputs import as_json, summary
from cluster.results.run_record import RunRecord
from gpo.checkpoint import Checkpoint
from gpo.data.task import Split, Task
from gpo.evaluation.evaluator import Answered
from gpo.models.protocol import Usage
from gpo.prompt import Prompt
from gpo.score import Score
from gpo.trajectory import Candidate, Direction, Samples, Spending, Step, Trajectory

_TEXT = (
    "the customer asks about a parcel that has not arrived although it was paid last week so this concerns an order "
    "and its payment rather than the account or a technical fault in the shop since nothing else is mentioned here"
)
_SEARCHES, _CANDIDATES, _EXAMPLES = 20, 20, 100
_NUM_PER_LABEL = {"train": 10, "val": 25, "test": 25}
"""Of the four labels of the simulated tickets."""
_WORDS = _TEXT.split()


def _answer(chance: random.Random, target: str) -> Answered:
    label = chance.choice((target, *DOMAINS[TICKETS].labels))
    text = f"{' '.join(chance.choices(_WORDS, k=25)).capitalize()}. The answer is {label}."
    reason = "" if label == target else f'read as "{label}", but the right answer is "{target}"'
    usage = Usage(requests=1, prompt_tokens=120, completion_tokens=40)
    value = float(label == target)
    return Answered(text, value, Spending(task=usage), reason=reason, seconds=chance.random(), read=label)


def write_run(folder: Folder, num_answers: int) -> float:
    """Write the folder of a run; returns the CPU seconds that recording took.

    Args:
        num_answers: is rounded to whole steps of all searches.
    """
    chance, task = random.Random(0), make_task(TICKETS, 0, _NUM_PER_LABEL)
    num_steps = max(1, num_answers // (_SEARCHES * _CANDIDATES * _EXAMPLES))
    spent_s, checkpoints = 0.0, dict[SearchKey, Checkpoint]()
    for seed in range(_SEARCHES):
        key = SearchKey(task.name, seed)
        checkpoints[key], more_s = asyncio.run(_search(folder, key, task, num_steps, chance))
        CheckpointStore(folder / "trajectories").save(key, checkpoints[key])
        spent_s += more_s
    times = {"started_at": "2026-01-01T00:00:00+00:00", "finished_at": "2026-01-01T01:00:00+00:00"}
    record = RunRecord("answers", 0.0, "completed", keys=tuple(checkpoints), checkpoints=checkpoints)
    folder.write("summary.json", as_json(summary(record, times)))
    folder.write("config.yaml", b"run: {name: answers}\n")
    folder.write(examples_name(task.name), encoded_examples(task))
    return spent_s


async def _search(
    folder: Folder, key: SearchKey, task: Task, num_steps: int, chance: random.Random
) -> tuple[Checkpoint, float]:
    log = AnswerLog(folder / "trajectories", key, writes_all=True, max_bytes=10**12)
    spent_s = 0.0

    def scored(text: str) -> Candidate:
        nonlocal spent_s
        prompt = Prompt(text)
        answers = [_answer(chance, example.target) for example in task.examples[Split.VAL]]
        began = process_time()
        log.add(prompt, Split.VAL, None, answers)
        spent_s += process_time() - began
        return Candidate(prompt, Score(tuple(answer.value for answer in answers)), 5)

    trajectory = Trajectory(scored(task.initial.text))
    for index in range(num_steps):
        start = trajectory.current.prompt.text.split()[:30]
        texts = [" ".join((*start, *chance.choices(_WORDS, k=5), str(number))) for number in range(_CANDIDATES)]
        candidates = tuple(scored(f"{text} {key.seed} {index}") for text in texts)
        best = max(candidates, key=lambda candidate: candidate.score.mean)
        trajectory = trajectory.append(Step(index, 10, Direction(), candidates, best, Samples(), Spending()))
        began = process_time()
        await log.write(f"step-{index + 1:05}", [])
        spent_s += process_time() - began
    return Checkpoint(trajectory, {}), spent_s


@contextmanager
def _viewed(folder: Path) -> Iterator[tuple[httpx2.Client, int]]:
    """A client of ``gpo view`` in a process of its own, and that process's ID."""
    command = [sys.executable, "-m", "cluster.cli", "view", str(folder), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)  # noqa: S603
    try:
        assert process.stderr is not None  # noqa: S101
        address = next(word for word in process.stderr.readline().split() if word.startswith("http"))
        with httpx2.Client(base_url=address, timeout=120) as client:
            while True:
                try:
                    client.get("/")
                    break
                except httpx2.TransportError:
                    time.sleep(0.1)
            yield client, process.pid
    finally:
        process.terminate()
        process.wait()


def _cpu_s(process: int) -> float:
    """The CPU time of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure_opening(num_answers: int) -> None:
    """Print what the folder of a run with so many answers takes, and how long its pages take."""
    with tempfile.TemporaryDirectory() as scratch:
        parent = Path(scratch)
        spent_s = write_run(Folder.at(str(parent / "answers")), num_answers)
        files = [path for path in (parent / "answers").rglob("*") if path.is_file()]
        recorded = [path for path in files if path.parent.suffix == ".answers"]
        print(
            f"{num_answers:,} answers: {sum(path.stat().st_size for path in recorded) / 1e6:,.0f} MB in "
            f"{len(recorded):,} files; all files: {sum(path.stat().st_size for path in files) / 1e6:,.0f} MB. "
            f"Recording took {1e6 * spent_s / num_answers:.0f} µs of CPU time per answer.\n"
        )
        print("| Part of `gpo view` | Seconds | CPU, s | MB |\n|---|--:|--:|--:|")
        with _viewed(parent) as (client, server):
            prompt = ""
            for name, path in (
                ("run, the first time", "/run/answers"),
                ("its curves", f"/run/answers/curves/{TICKETS}"),
                ("its candidates", "/run/answers/data"),
                ("examples and prompts of a search", f"/run/answers/answers?task={TICKETS}&seed=7"),
                ("answers to a prompt", f"/run/answers/answers?task={TICKETS}&seed=7&prompt="),
                ("run, again", "/run/answers"),
            ):
                began, cpu_s = perf_counter(), _cpu_s(server)
                reply = client.get(f"{path}{prompt}" if path.endswith("prompt=") else path).raise_for_status()
                times = f"{perf_counter() - began:.2f} | {_cpu_s(server) - cpu_s:.2f}"
                print(f"| {name} | {times} | {len(reply.content) / 1e6:.1f} |", flush=True)
                if name.startswith("examples"):
                    prompt = next(iter(reply.json()["recorded"]))
        report = [sys.executable, "-m", "cluster.cli", "report", str(parent / "answers")]
        began = perf_counter()
        subprocess.run(report, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
        size = (parent / "answers/report.html").stat().st_size
        print(f"\n`gpo report`: {perf_counter() - began:.1f} s; `report.html` has {size / 1e6:.1f} MB.\n")


def measure_recording(rounds: int, steps: int) -> None:
    """Print the CPU time per call of a search in this process without and with recording, in turns."""
    figures: dict[str, list[tuple[float, float]]] = {"none": [], "chosen": [], "all": []}
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "access.log"
        with EndpointProcess(log, "--latency-ms", "20", "--limit", "64") as endpoint:
            for number in range(rounds + 1):
                for answers, found in figures.items():
                    folder = Path(scratch) / f"{number}-{answers}"
                    one = _searched(endpoint.base_url, folder, answers, steps)
                    if number:  # the first round loads code
                        found.append(one)
    print(
        "| `record.answers` | CPU, ms per call | Beyond the same round's `none` | Calls per second |\n|---|--:|--:|--:|"
    )
    for answers, found in figures.items():
        cpu, speed = (statistics.median(each) for each in zip(*found, strict=True))
        more = statistics.median(one / base - 1 for (one, _), (base, _) in zip(found, figures["none"], strict=True))
        print(f"| {answers} | {cpu:.3f} | {more:+.1%} | {speed:.0f} |")


def _searched(url: str, folder: Path, answers: str, steps: int) -> tuple[float, float]:
    """CPU milliseconds per call, and calls per second."""
    data: dict[str, Any] = {**splits(TICKETS, 0, _NUM_PER_LABEL)}
    began, wall = process_time(), perf_counter()
    run = gpo.optimize(
        "Classify the support ticket into one of: billing, technical, shipping, account.",
        **data,
        metric="label",
        task_model=gpo.Endpoint(url, model="task-model", sampling={"max_tokens": 64}, max_concurrency=32),
        optimizer_model=gpo.Endpoint(url, model="opt-model", sampling={"max_tokens": 512}),
        steps=steps,
        optimizer={"candidates": 8},
        evaluation={"scoring": {"kind": "full"}},
        cache={"kind": "none"},
        record={"answers": answers},
        run_dir=folder,
        progress=False,
    )
    calls = run.summary["spent"]["calls"]
    return 1000 * (process_time() - began) / calls, calls / (perf_counter() - wall)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.answers", description=__doc__)
    parser.add_argument("--answers", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=5, help="of the searches with and without recording")
    parser.add_argument("--steps", type=int, default=4, help="of each of these searches")
    chosen = parser.parse_args(arguments)
    measure_opening(chosen.answers)
    measure_recording(chosen.rounds, chosen.steps)
    return 0


if __name__ == "__main__":
    sys.exit(main())
