from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import pytest

from actors.trajectory_actor import TrajectoryActor
from benchmarks.chaos import DRIVER, PARTS, never_killed, table
from benchmarks.measuring.access_log import CHAT, AnsweredCalls
from benchmarks.measuring.disturbed import UNDISTURBED, Disturbed, append_row, read_rows
from benchmarks.measuring.family import Family, Member, marked_environment
from benchmarks.measuring.kills import PROGRAMS, Kills, Part, Plan, every_few_seconds, part
from benchmarks.measuring.repeats import UNWRITTEN_S, Repeats, repeats
from benchmarks.measuring.sitting import Household
from benchmarks.simulated.service import AccessRecord
from cluster import cli
from gpo.limits.limiter import LocalLimiter
from serve.embedded_model import EmbeddedModelServer

ACTORS = [Member(number, "0", "TrajectoryActor") for number in (1, 2, 3)]
REPLICA, CONTROLLER = Member(4, "0", "ServeReplica"), Member(5, "0", "ServeController")
DRIVER_PROCESS, DAEMON = Member(6, "0", "cluster.cli"), Member(7, "0", "raylet")

# A process that starts another, in a session of its own, and forgets it.
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env={}, start_new_session=True)
print(child.pid, flush=True)
time.sleep(0.5)
"""


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of those that were killed, none of which is a process."""
    killed: list[int] = []

    def kill(member: Member) -> bool:
        killed.append(member.pid)
        return True

    monkeypatch.setattr(Member, "kill", kill)
    return killed


def test_a_plan_is_followed_and_waits_for_a_part_that_is_not_there(dying: list[int]) -> None:
    kills = Kills(Plan([(1.0, Part.REPLICA), (1.0, Part.DRIVER)], first=0, least=0), Random(0), lambda: 0)
    everybody = [*ACTORS, REPLICA, DRIVER_PROCESS]
    for now_s, members in ((0.0, everybody), (0.9, everybody), (1.0, ACTORS), (1.1, everybody), (2.0, everybody)):
        kills.look(now_s, members)
    assert dying == [REPLICA.pid]
    for now_s in (2.2, 3.0, 9.0):
        kills.look(now_s, everybody)
    assert [(kill.part, kill.pid, kill.at_s) for kill in kills.done] == [
        (Part.REPLICA, REPLICA.pid, 1.1),
        (Part.DRIVER, DRIVER_PROCESS.pid, 2.2),
    ]


def test_a_kill_waits_for_calls_that_are_answered_after_the_one_before(dying: list[int]) -> None:
    answered: list[int] = []
    kills = Kills(Plan([(1.0, None), (1.0, None)], first=1, least=20), Random(0), lambda: answered[-1])
    for now_s, count in {0.0: 0, 7.0: 0, 8.0: 1, 8.9: 30, 9.0: 30, 10.5: 49, 11.0: 50, 20.0: 90}.items():
        answered.append(count)
        kills.look(now_s, ACTORS)
    assert [kill.at_s for kill in kills.done] == [9.0, 11.0]


def test_parts_are_chosen_alike_however_many_processes_they_have(dying: list[int]) -> None:
    draw = Random(0)
    seconds = iter(range(1_000_000))
    kills = Kills(every_few_seconds(draw, 2.0, 6.0), draw, lambda: 100 * next(seconds))
    for second in range(4 * 400 * 10):
        kills.look(second / 10, [*ACTORS, REPLICA, CONTROLLER, DRIVER_PROCESS, DAEMON])
    kinds = [kill.part for kill in kills.done]
    assert set(kinds) == {Part.ACTOR, Part.REPLICA, Part.CONTROLLER}
    assert all(kinds.count(kind) == pytest.approx(len(kinds) / 3, rel=0.25) for kind in set(kinds))
    assert len(kinds) == pytest.approx(400, rel=0.1)
    gaps = [after.at_s - before.at_s for before, after in zip(kills.done, kills.done[1:], strict=False)]
    assert 2.0 <= min(gaps) < 2.5
    assert 5.5 < max(gaps) <= 6.2
    assert {kill.pid for kill in kills.done} == {1, 2, 3, 4, 5}


def test_answered_calls_are_counted_while_the_log_grows(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    answered = AnsweredCalls(path)
    assert answered() == 0
    records = [_call(1.0, "one"), _call(2.0, "two", status=499), _call(3.0, "three")]
    lines = b"".join(json.dumps(asdict(record)).encode() + b"\n" for record in records)
    path.write_bytes(lines[:-5])
    assert answered() == 1
    path.write_bytes(lines)
    assert (answered(), answered()) == (2, 2)


def test_daemons_are_no_part() -> None:
    assert part(DAEMON) is None
    assert part(REPLICA) is Part.REPLICA


def test_parts_are_known_by_the_names_that_they_have() -> None:
    ours = {kind.__name__ for kind in (TrajectoryActor, LocalLimiter, EmbeddedModelServer)} | {cli.__name__}
    assert set(PROGRAMS) == ours | {"ServeReplica", "ServeController"}


def test_children_without_the_mark_belong_to_the_family_and_are_missed_when_they_end(
    until: Callable[[Callable[[], bool]], None],
) -> None:
    family = Family("one")
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], env=marked_environment("one"), stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        seen = {member.pid for member in family.look()}
        assert {parent.pid, child} <= seen
        assert not Family("two").look()
        parent.wait()
    orphans = {member.pid: member for member in family.look()}
    assert parent.pid not in orphans
    assert not Member(child, "another", "").kill(), "a number that is used again is somebody else"
    assert orphans[child].kill()
    until(lambda: not family.look())
    (born,) = [born for pid, born in family.lives if pid == child]
    seen_s, missed_s = family.lives[child, born]
    assert missed_s is not None
    assert seen_s <= missed_s
    assert family.ends(orphans[child].program)[child] == (seen_s, missed_s)


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    return wait


def test_a_sitting_ends_with_its_command_and_what_is_left_can_be_cleared(tmp_path: Path) -> None:
    household = Household()
    sitting = household.sit([sys.executable, "-c", PARENT], cwd=tmp_path, output=tmp_path / "output.txt")
    assert sitting.code == 0
    assert sitting.started_s < sitting.ended_s
    assert household.linger(0.3) >= 0.3
    ((left,),) = household.clear()
    assert left
    assert household.linger(20.0) < 20.0


def _call(started_s: float, content: str, status: int = 200, model: str = "task-model") -> AccessRecord:
    return AccessRecord(CHAT, model, status, 1, started_s, started_s + 0.1, content, 0, 0)


def test_repeats_are_told_apart_by_what_became_of_the_answer_before() -> None:
    log = [
        _call(1.0, "kept"),
        _call(4.95, "under way"),
        _call(4.9 - UNWRITTEN_S / 2, "just before"),
        _call(4.0, "long before"),
        _call(5.01, "after"),
        _call(4.96, "cut", status=499),
        _call(4.95, "of the other model", model="opt-model"),
    ]
    again = [_call(7.0, record.content, model=record.model) for record in log[1:]]
    told = repeats([*again, *log], [(2.0, 2.0), (5.0, 5.0)], "task-model")
    assert told == Repeats(1, 1, 2, 1, pytest.approx(UNWRITTEN_S / 2))
    assert repeats([*again, *log], [], "opt-model") == Repeats(0, 0, 1, 0)
    assert repeats(log, [(5.0, 5.0)], "task-model") == Repeats(0, 0, 0, 1)


GOOD: dict[str, Any] = {"code": 0, "status": "completed", "is_same": True, "sittings": 1, "num_calls": 1000}
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
def test_a_run_is_good_that_was_disturbed_and_paid_for_nothing_twice(changes: dict[str, Any], is_good: bool) -> None:
    row = {"scenario": PARTS, "seed": 0, "kills": {Part.ACTOR: 1}, "task": NONE, "optimizer": NONE, **GOOD}
    assert Disturbed(**{**row, **changes}).is_good is is_good


def test_a_part_that_is_never_killed_is_told_of_once_there_were_many_kills() -> None:
    kills: dict[str, int] = {Part.ACTOR: 10, Part.REPLICA: 9, Part.CONTROLLER: 11}
    rows = [
        Disturbed(scenario=scenario, seed=seed, kills=kills, **GOOD)
        for scenario, seed in ((PARTS, 0), (PARTS, 1), (DRIVER, 0))
    ]
    assert never_killed(rows) == [Part.LIMITER]
    assert never_killed(rows[1:]) == []
    all_of_them = Disturbed(scenario=PARTS, seed=2, kills={Part.LIMITER: 1}, **GOOD)
    assert never_killed([*rows, all_of_them]) == []


def test_rows_survive_their_file_and_add_up_in_the_table(tmp_path: Path) -> None:
    rows = [
        Disturbed(scenario=PARTS, seed=0, kills={Part.ACTOR: 2}, task=Repeats(3, 1, 0, 9), optimizer=NONE, **GOOD),
        Disturbed(scenario=PARTS, seed=1, kills={Part.REPLICA: 1}, task=Repeats(0, 0, 2, 0), optimizer=BEYOND, **GOOD),
        Disturbed(scenario=DRIVER, seed=0, sittings=2, code=1, status="failed", is_same=False, task=NONE),
    ]
    for row in rows:
        append_row(tmp_path / "rows.jsonl", row)
    assert read_rows(tmp_path / "rows.jsonl") == rows
    assert [row.is_good for row in rows] == [True, False, False]
    *_, parts, driver = table(rows).splitlines()
    assert parts == f"| {PARTS} | 2 | 2 | 2 | 2 | 1 | 2,000 | 3 | 1 | 2 | 1 |"
    assert driver == f"| {DRIVER} | 1 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 |"
    assert read_rows(tmp_path / "none.jsonl") == []
