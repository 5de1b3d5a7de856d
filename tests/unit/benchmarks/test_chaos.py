from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from actors.limiter import SharedLimiter
from actors.trajectory_actor import TrajectoryActor
from benchmarks.chaos import DRIVER, PARTS, table
from benchmarks.measuring.access_log import Repeats
from benchmarks.measuring.chaos_run import UNDISTURBED, ChaosRun, append_row, read_rows
from benchmarks.measuring.kills import PROGRAMS, Kills, Part, Plan
from benchmarks.measuring.processes import Process
from cluster import cli
from serve.embedded_model import EmbeddedModelServer

ACTORS = [Process(number, "0", "TrajectoryActor") for number in (1, 2, 3)]
REPLICA, CONTROLLER = Process(4, "0", "ServeReplica"), Process(5, "0", "ServeController")
DRIVER_PROCESS, DAEMON = Process(6, "0", "cluster.cli"), Process(7, "0", "raylet")


@pytest.fixture
def killed_pids(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """IDs of the processes that would have been killed."""
    killed: list[int] = []

    def kill(process: Process) -> bool:
        killed.append(process.pid)
        return True

    monkeypatch.setattr(Process, "kill", kill)
    return killed


def test_a_plan_is_followed_and_waits_until_a_part_runs(killed_pids: list[int]) -> None:
    kills = Kills(Plan([(1.0, Part.REPLICA), (1.0, Part.DRIVER)], first=0, least=0), Random(0), lambda: 0)
    running = [*ACTORS, REPLICA, DRIVER_PROCESS]
    for now_s, processes in ((0.0, running), (0.9, running), (1.0, ACTORS), (1.1, running), (2.0, running)):
        kills.observe(now_s, processes)
    assert killed_pids == [REPLICA.pid]
    for now_s in (2.2, 3.0, 9.0):
        kills.observe(now_s, running)
    assert [(kill.part, kill.pid, kill.at_s) for kill in kills.done] == [
        (Part.REPLICA, REPLICA.pid, 1.1),
        (Part.DRIVER, DRIVER_PROCESS.pid, 2.2),
    ]


def test_a_kill_waits_for_calls_answered_after_the_previous_kill(killed_pids: list[int]) -> None:
    answered: list[int] = []
    kills = Kills(Plan([(1.0, None), (1.0, None)], first=1, least=20), Random(0), lambda: answered[-1])
    for now_s, count in {0.0: 0, 7.0: 0, 8.0: 1, 8.9: 30, 9.0: 30, 10.5: 49, 11.0: 50, 20.0: 90}.items():
        answered.append(count)
        kills.observe(now_s, ACTORS)
    assert [kill.at_s for kill in kills.done] == [9.0, 11.0]


def test_program_names_are_those_of_the_classes_and_the_command() -> None:
    ours = {kind.__name__ for kind in (TrajectoryActor, SharedLimiter, EmbeddedModelServer)} | {cli.__name__}
    assert set(PROGRAMS) == ours | {"ServeReplica", "ServeController"}


GOOD: dict[str, Any] = {"code": 0, "status": "completed", "is_same": True, "attempts": 1, "num_calls": 1000}
NONE, BEYOND = Repeats(0, 0, 0, 0), Repeats(0, 0, 1, 0)


@pytest.mark.parametrize(
    ("changes", "is_good"),
    [
        ({}, True),
        ({"kills": {}}, False),
        ({"kills": {Part.ACTOR: 0}}, False),
        ({"scenario": UNDISTURBED, "kills": {}}, True),
        ({"task": BEYOND}, False),
        ({"optimizer": BEYOND}, False),
        ({"num_calls": 0}, False),
        ({"num_calls": 0, "task": None, "optimizer": None}, True),
        ({"left": ["TrajectoryActor"]}, False),
    ],
)
def test_a_run_is_good_if_parts_were_killed_and_no_call_was_repeated(changes: dict[str, Any], is_good: bool) -> None:
    row = {"scenario": PARTS, "seed": 0, "kills": {Part.ACTOR: 1}, "task": NONE, "optimizer": NONE, **GOOD}
    assert ChaosRun(**{**row, **changes}).is_good is is_good


def test_rows_are_stored_and_add_up_in_the_table(tmp_path: Path) -> None:
    rows = [
        ChaosRun(scenario=PARTS, seed=0, kills={Part.ACTOR: 2}, task=Repeats(3, 1, 0, 9), optimizer=NONE, **GOOD),
        ChaosRun(scenario=PARTS, seed=1, kills={Part.REPLICA: 1}, task=Repeats(0, 0, 2, 0), optimizer=BEYOND, **GOOD),
        ChaosRun(scenario=DRIVER, seed=0, attempts=2, code=1, status="failed", is_same=False, task=NONE),
    ]
    for row in rows:
        append_row(tmp_path / "rows.jsonl", row)
    assert read_rows(tmp_path / "rows.jsonl") == rows
    assert [row.is_good for row in rows] == [True, False, False]
    *_, parts, driver = table(rows).splitlines()
    assert parts == f"| {PARTS} | 2 | 2 | 2 | 2 | 1 | 2,000 | 3 | 1 | 2 | 1 |"
    assert driver == f"| {DRIVER} | 1 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 |"
    assert read_rows(tmp_path / "none.jsonl") == []
