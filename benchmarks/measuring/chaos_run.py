"""Runs ``gpo run`` on the simulated endpoint while its processes are killed, and compares the results."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import yaml

from benchmarks.measuring.access_log import CHAT, AnsweredCalls, Repeats, read_log, repeats
from benchmarks.measuring.commands import CommandResult, CommandRunner
from benchmarks.measuring.kills import Kills, Part, Plan
from benchmarks.measuring.servers import ROOT, EndpointProcess
from benchmarks.measuring.subjects import command
from benchmarks.simulated.domains import DOMAINS, write_tasks
from benchmarks.simulated.service import AccessRecord

UNDISTURBED = "nothing"
"""The scenario of a run in which nothing is killed."""
RESTARTS = 1000
"""``cluster.actor_restarts``: the default is too low for actors that die every few seconds."""
_KILLED = -9
_END_TIMEOUT_S = 30.0
_FIRST_CALL_S = 3.0
"""A command makes no call this soon after its start."""
_CALLERS = ("TrajectoryActor", "ServeReplica", "cluster.cli")
"""The programs that call models, or wait for their replies."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """The size of a run. The default makes some 5,000 calls in 40 s.

    Attributes:
        tasks, seeds: there is a trajectory for each pair.
        latency_ms: of the endpoint.
        at_once: concurrent calls of the task model.
    """

    tasks: int = 4
    seeds: int = 2
    steps: int = 3
    candidates: int = 4
    latency_ms: float = 100.0
    at_once: int = 16


@dataclass(frozen=True, kw_only=True)
class ChaosRun:
    """The outcome of a run whose processes were killed.

    Attributes:
        scenario: which parts were killed; ``UNDISTURBED`` for none.
        seed: determines which process was killed at which time.
        attempts: number of commands, the first and its resumptions.
        code, status: of the last attempt.
        is_same: whether prompts, scores and steps equal those of the undisturbed run.
        failure: why the last attempt failed, else empty.
        kills: part → number of kills.
        wall_s: duration of all attempts, without the time between them.
        task, optimizer: repeated calls; ``None`` if there is no log.
        num_calls: answered calls of the task model.
        orphans_s: longest time that actors and replicas outlived their killed driver.
        orphaned_calls: requests that they began in that time.
        left: programs that remained for too long after the last attempt and were killed.
        orphans_left: the same for attempts whose driver was killed; Ray's own daemons remain then.
    """

    scenario: str
    seed: int
    attempts: int
    code: int
    status: str
    is_same: bool
    failure: str = ""
    kills: Mapping[str, int] = field(default_factory=dict)
    wall_s: float = 0.0
    task: Repeats | None = None
    optimizer: Repeats | None = None
    num_calls: int = 0
    orphans_s: float | None = None
    orphaned_calls: int = 0
    left: Sequence[str] = field(default_factory=list)
    orphans_left: Sequence[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether parts were killed, the run ended with the same results, and no call was repeated without need."""
        is_completed = self.code == 0 and self.status == "completed" and not self.left
        return is_completed and self.is_same and not self.beyond and self._was_tested

    @property
    def beyond(self) -> int:
        """Calls of both models that were repeated without need."""
        return sum(model.beyond for model in (self.task, self.optimizer) if model is not None)

    @property
    def _was_tested(self) -> bool:
        """Whether a part was killed if the scenario requires it, and the log, if there is one, has calls."""
        is_disturbed = self.scenario == UNDISTURBED or sum(self.kills.values()) > 0
        return is_disturbed and (self.task is None or self.num_calls > 0)


def write_search(folder: Path, base_url: str, size: Size) -> Path:
    """Write ``config.yaml`` and the tasks' files to a folder that also holds the completion cache; return its path."""
    config = {
        "run": {"name": "chaos", "seeds": list(range(size.seeds))},
        "models": {
            "task": {"base_url": base_url, "check": False, "model": "task-model", "max_concurrency": size.at_once},
            "optimizer": {"base_url": base_url, "check": False, "model": "opt-model", "max_concurrency": 8},
        },
        "tasks": write_tasks(folder, list(DOMAINS)[: size.tasks]),
        "optimizer": {"steps": size.steps, "candidates": size.candidates},
        "cluster": {"trajectories_per_actor": 2, "evaluator_replicas": 2, "actor_restarts": RESTARTS},
        "metrics": {"port": 0, "linger_s": 0},
        "cache": {"path": str(folder / "completions.sqlite")},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path


def read_results(results: Path) -> Any:
    """The results of a run without its costs; ``None`` if there are none."""
    try:
        rows = json.loads((results / "summary.json").read_text(encoding="utf-8"))["trajectories"]
        lines = (results / "steps.jsonl").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return None
    steps = [{name: value for name, value in json.loads(line).items() if name != "llm"} for line in lines]
    return {"trajectories": rows, "steps": steps}


def run_with_kills(
    folder: Path,
    scenario: str,
    seed: int,
    plan: Callable[[Random], Plan],
    expected: Any,
    *,
    size: Size,
    pauses_s: Sequence[float] = (0.0,),
) -> ChaosRun:
    """Run a search while parts of it are killed, and resume it whenever its driver was killed.

    Args:
        folder: for its files; existing content is removed.
        plan: makes the plan of kills from a random number generator with the given seed.
        expected: the expected result of ``read_results``; ``None`` if it is not known yet.
        pauses_s: the pause before each resumption is one of these.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    draw, runner, log = Random(seed), CommandRunner(), folder / "access.jsonl"
    with EndpointProcess(log, "--latency-ms", size.latency_ms) as endpoint:
        begin = command(write_search(folder, endpoint.base_url, size), folder / "results")
        kills = Kills(plan(draw), draw, AnsweredCalls(log))
        attempts: list[CommandResult] = []
        while not attempts or attempts[-1].code == _KILLED:
            runner.wait_until_gone(draw.choice(pauses_s) if attempts else 0.0)
            attempts.append(
                runner.run(
                    [*begin, *(["--resume"] if attempts else [])],
                    kills,
                    cwd=folder,
                    output=folder / "output.txt",
                    env={"PYTHONPATH": str(ROOT)},
                )
            )
        runner.wait_until_gone(_END_TIMEOUT_S)
        *orphans, left = runner.kill_remaining()
    records, ends = read_log(log), _ends(runner, kills)
    (folder / "kills.json").write_text(
        json.dumps({"kills": [asdict(kill) for kill in kills.done], "ends": ends}), "utf-8"
    )
    result = read_results(folder / "results")
    deaths = [kill.at_s for kill in kills.done if kill.part is Part.DRIVER]
    return ChaosRun(
        scenario=scenario,
        seed=seed,
        attempts=len(attempts),
        code=attempts[-1].code,
        status=_status(folder / "results"),
        is_same=result is not None and result == (expected or result),
        failure=_failure(attempts[-1].code, folder),
        kills=dict(Counter(kill.part for kill in kills.done)),
        wall_s=sum(attempt.ended_s - attempt.started_s for attempt in attempts),
        task=repeats(records, ends, "task-model"),
        optimizer=repeats(records, ends, "opt-model"),
        num_calls=sum(record.model == "task-model" and record.status == 200 for record in records),
        orphans_s=_orphans_s(runner, deaths),
        orphaned_calls=_orphaned_calls(records, deaths, [attempt.started_s for attempt in attempts[1:]]),
        left=left,
        orphans_left=[program for programs in orphans for program in programs],
    )


def _ends(runner: CommandRunner, kills: Kills) -> list[tuple[float, float]]:
    """When processes that make calls ended, whether they were killed or ended as a consequence."""
    seen = {pid: between for group in runner.groups for pid, between in group.ends(*_CALLERS).items()}
    killed = {kill.pid: (kill.at_s, kill.at_s + 0.05) for kill in kills.done if kill.pid in seen}
    return list({**seen, **killed}.values())


def _orphans_s(runner: CommandRunner, deaths: Sequence[float]) -> float | None:
    lived_s = [
        missed_s - death_s
        for group, death_s in zip(runner.groups, deaths, strict=False)
        for _, missed_s in group.ends(*_CALLERS).values()
    ]
    return max(lived_s, default=None)


def _orphaned_calls(records: Sequence[AccessRecord], deaths: Sequence[float], resumptions: Sequence[float]) -> int:
    times = list(zip(deaths, resumptions, strict=False))
    return sum(
        record.path == CHAT and any(death < record.started_s < resumed + _FIRST_CALL_S for death, resumed in times)
        for record in records
    )


def _status(results: Path) -> str:
    try:
        return str(json.loads((results / "summary.json").read_text(encoding="utf-8"))["status"])
    except (OSError, ValueError):
        return "unknown"


def _failure(code: int, folder: Path) -> str:
    said = (folder / "output.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    lines = [line.strip() for line in said if line.strip()]
    if any(line.startswith("Traceback") for line in lines):
        return f"exit code {code}, and a traceback: {lines[-1][:200]}"
    return f"exit code {code}: {lines[-1][:200] if lines else ''}" if code else ""


def append_row(path: Path, row: ChaosRun) -> None:
    """Append a run to a file of JSON lines."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(row)) + "\n")


def read_rows(path: Path) -> list[ChaosRun]:
    """The runs in a file; none if there is no file."""
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        ChaosRun(**{**row, **{name: row[name] and Repeats(**row[name]) for name in ("task", "optimizer")}})
        for row in rows
    ]
