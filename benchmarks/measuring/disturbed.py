"""A run on the simulated endpoint that is disturbed, and held against one that is not."""

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

from benchmarks.measuring.access_log import CHAT, AnsweredCalls, read_log
from benchmarks.measuring.endpoint_process import ROOT, EndpointProcess
from benchmarks.measuring.kills import Kills, Part, Plan
from benchmarks.measuring.ours import command
from benchmarks.measuring.repeats import Repeats, repeats
from benchmarks.measuring.sitting import Household, Sitting
from benchmarks.simulated.domains import DOMAINS, write_tasks
from benchmarks.simulated.service import AccessRecord

UNDISTURBED = "nothing"
"""The scenario of a run that is left alone."""
RESTARTS = 1000
"""``cluster.actor_restarts``: nobody's actors die every few seconds, so the default would be spent by design."""
_KILLED = -9
_LONGEST_LEFT_S = 30.0
_FIRST_CALL_S = 3.0
"""A command makes no call of a model so soon after its start."""
_CALLERS = ("TrajectoryActor", "ServeReplica", "cluster.cli")
"""The programs that call models, or wait for those who do."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much there is to do. As it stands: some 5,000 calls, which take 40 s.

    Attributes:
        tasks, seeds: a trajectory for each pair.
        latency_ms: of the endpoint.
        at_once: calls of the task model.
    """

    tasks: int = 4
    seeds: int = 2
    steps: int = 3
    candidates: int = 4
    latency_ms: float = 100.0
    at_once: int = 16


@dataclass(frozen=True, kw_only=True)
class Disturbed:
    """What came of a run.

    Attributes:
        scenario: which parts were in danger; ``UNDISTURBED`` where none was.
        seed: that decided who was killed when.
        sittings: commands that it took.
        code, status: of the last one; what it printed last, where it failed.
        is_same: whether prompts, scores and steps are those of the run that nobody disturbed.
        kills: part → how often.
        wall_s: of all sittings, the time between them left out.
        task, optimizer: calls repeated; ``None`` where no log was looked at.
        num_calls: of the task model, answered.
        orphans_s: how long actors and replicas lived on after their driver was killed, at most.
        orphaned_calls: requests that they began in that time.
        left: programs that were there for too long after the last sitting, and were killed.
        orphans_left: likewise, of sittings whose driver was killed; it is Ray's own daemons that stay.
    """

    scenario: str
    seed: int
    sittings: int
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
        """Whether it was disturbed, ended as if nothing had happened, and paid for nothing twice without need."""
        is_completed = self.code == 0 and self.status == "completed" and not self.left
        return is_completed and self.is_same and not self.beyond and self._was_tried

    @property
    def beyond(self) -> int:
        """Calls of either model that were repeated without need."""
        return sum(model.beyond for model in (self.task, self.optimizer) if model is not None)

    @property
    def _was_tried(self) -> bool:
        """Whether there was something to survive: somebody was killed, and the log, where there is one, has calls."""
        is_disturbed = self.scenario == UNDISTURBED or sum(self.kills.values()) > 0
        return is_disturbed and (self.task is None or self.num_calls > 0)


def write_search(folder: Path, base_url: str, size: Size) -> Path:
    """Write ``config.yaml`` and its tasks' files to a folder, which holds the completions' cache too; its path."""
    config = {
        "run": {"name": "chaos", "seeds": list(range(size.seeds))},
        "models": {
            "task": {"base_url": base_url, "model": "task-model", "max_concurrency": size.at_once},
            "optimizer": {"base_url": base_url, "model": "opt-model", "max_concurrency": 8},
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


def found(results: Path) -> Any:
    """What a search found, without what it cost; ``None`` where it left no results."""
    try:
        rows = json.loads((results / "summary.json").read_text(encoding="utf-8"))["trajectories"]
        lines = (results / "steps.jsonl").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return None
    steps = [{name: value for name, value in json.loads(line).items() if name != "llm"} for line in lines]
    return {"trajectories": rows, "steps": steps}


def disturbed(
    folder: Path,
    scenario: str,
    seed: int,
    plan: Callable[[Random], Plan],
    expected: Any,
    *,
    size: Size,
    pauses_s: Sequence[float] = (0.0,),
) -> Disturbed:
    """Run a search by a plan of kills, and resume it whenever its driver was killed.

    Args:
        folder: for its files; what it holds is removed first.
        plan: of the kills, by a generator of random numbers that the seed decides.
        expected: what ``found`` has to say in the end; ``None`` where that is yet to be found out.
        pauses_s: one of these is waited before a run is resumed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    draw, household, log = Random(seed), Household(), folder / "access.jsonl"
    with EndpointProcess(log, "--latency-ms", size.latency_ms) as endpoint:
        begin = command(write_search(folder, endpoint.base_url, size), folder / "results")
        kills = Kills(plan(draw), draw, AnsweredCalls(log))
        sittings: list[Sitting] = []
        while not sittings or sittings[-1].code == _KILLED:
            household.linger(draw.choice(pauses_s) if sittings else 0.0)
            sittings.append(
                household.sit(
                    [*begin, *(["--resume"] if sittings else [])],
                    kills,
                    cwd=folder,
                    output=folder / "output.txt",
                    env={"PYTHONPATH": str(ROOT)},
                )
            )
        household.linger(_LONGEST_LEFT_S)
        *orphans, left = household.clear()
    records, ends = read_log(log), _ends(household, kills)
    (folder / "kills.json").write_text(
        json.dumps({"kills": [asdict(kill) for kill in kills.done], "ends": ends}), "utf-8"
    )
    result = found(folder / "results")
    deaths = [kill.at_s for kill in kills.done if kill.part is Part.DRIVER]
    return Disturbed(
        scenario=scenario,
        seed=seed,
        sittings=len(sittings),
        code=sittings[-1].code,
        status=_status(folder / "results"),
        is_same=result is not None and result == (expected or result),
        failure=_failure(sittings[-1].code, folder),
        kills=dict(Counter(kill.part for kill in kills.done)),
        wall_s=sum(sitting.ended_s - sitting.started_s for sitting in sittings),
        task=repeats(records, ends, "task-model"),
        optimizer=repeats(records, ends, "opt-model"),
        num_calls=sum(record.model == "task-model" and record.status == 200 for record in records),
        orphans_s=_orphans_s(household, deaths),
        orphaned_calls=_orphaned_calls(records, deaths, [sitting.started_s for sitting in sittings[1:]]),
        left=left,
        orphans_left=[program for programs in orphans for program in programs],
    )


def _ends(household: Household, kills: Kills) -> list[tuple[float, float]]:
    """When processes that make calls ended, whether we killed them or they died of it."""
    seen = {pid: between for family in household.families for pid, between in family.ends(*_CALLERS).items()}
    ours = {kill.pid: (kill.at_s, kill.at_s + 0.05) for kill in kills.done if kill.pid in seen}
    return list({**seen, **ours}.values())


def _orphans_s(household: Household, deaths: Sequence[float]) -> float | None:
    lived_s = [
        missed_s - death_s
        for family, death_s in zip(household.families, deaths, strict=False)
        for _, missed_s in family.ends(*_CALLERS).values()
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


def append_row(path: Path, row: Disturbed) -> None:
    """Append it to a file of JSON lines."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(row)) + "\n")


def read_rows(path: Path) -> list[Disturbed]:
    """What was appended to a file; nothing where there is none."""
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        Disturbed(**{**row, **{name: row[name] and Repeats(**row[name]) for name in ("task", "optimizer")}})
        for row in rows
    ]
