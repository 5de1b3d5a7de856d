from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from random import Random

import pytest

from benchmarks.chaos import DRIVER, PARTS, table
from benchmarks.measuring.access_log import CHAT, AnsweredCalls
from benchmarks.measuring.disturbed import Disturbed, append_row, read_rows
from benchmarks.measuring.family import Family, Member, marked_environment
from benchmarks.measuring.kills import Kills, Part, Plan, every_few_seconds, part
from benchmarks.measuring.repeats import UNWRITTEN_S, Repeats, repeats
from benchmarks.measuring.sitting import Household
from benchmarks.measuring.weighing import Holding, Tolerance, growths, weigh
from benchmarks.simulated.service import AccessRecord

ACTORS = [Member(number, "0", "Host") for number in (1, 2, 3)]
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


def test_rows_survive_their_file_and_add_up_in_the_table(tmp_path: Path) -> None:
    good = {"code": 0, "status": "completed", "is_same": True, "sittings": 1}
    rows = [
        Disturbed(scenario=PARTS, seed=0, kills={Part.ACTOR: 2}, task=Repeats(3, 1, 0, 9), num_calls=1000, **good),
        Disturbed(scenario=PARTS, seed=1, kills={Part.REPLICA: 1}, task=Repeats(0, 0, 2, 0), num_calls=1000, **good),
        Disturbed(
            scenario=DRIVER, seed=0, sittings=2, code=1, status="failed", is_same=False, task=Repeats(0, 0, 0, 0)
        ),
    ]
    for row in rows:
        append_row(tmp_path / "rows.jsonl", row)
    assert read_rows(tmp_path / "rows.jsonl") == rows
    assert [row.is_good for row in rows] == [True, False, False]
    *_, parts, driver = table(rows).splitlines()
    assert parts == f"| {PARTS} | 2 | 2 | 2 | 2 | 1 | 2,000 | 3 | 1 | 2 |"
    assert driver == f"| {DRIVER} | 1 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 |"
    assert read_rows(tmp_path / "none.jsonl") == []


def _holding(**changes: int) -> Holding:
    usual = {"pss": 100_000_000, "rss": 150_000_000, "threads": 10, "files": 50, "sockets": 20, "tasks": 200}
    return Holding("Host", **{**usual, **changes})


@pytest.mark.parametrize(
    ("changes", "grown"),
    [
        ({}, []),
        ({"pss": 110_000_000, "threads": 14, "files": 66, "tasks": 456}, []),
        ({"pss": 110_000_001}, ["memory"]),
        ({"threads": 15, "files": 67}, ["threads", "files"]),
        ({"tasks": 457}, ["tasks"]),
        ({"pss": 50_000_000, "files": 0, "tasks": 0}, []),
    ],
)
def test_what_grew_is_named(changes: dict[str, int], grown: list[str]) -> None:
    assert growths(_holding(), _holding(**changes), Tolerance(), 64) == grown


def test_a_small_process_may_grow_by_more_than_its_share() -> None:
    assert growths(_holding(pss=10_000_000), _holding(pss=18_000_000), Tolerance(), 64) == []
    assert growths(_holding(pss=10_000_000), _holding(pss=18_000_001), Tolerance(), 64) == ["memory"]


def test_a_process_is_weighed(tmp_path: Path) -> None:
    script = "import socket; held, ends = bytearray(b'x' * 50_000_000), socket.socketpair(); print(); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (tmp_path / str(process.pid)).write_text("1.0 7\n6.0 9\n", encoding="ascii")
        weighed = weigh([Member(process.pid, "0", "a program"), Member(2**30, "0", "gone")], tmp_path)
        process.communicate(b"\n")
    (held,) = weighed.values()
    assert held.program == "a program"
    assert 50_000_000 < held.pss <= held.rss
    assert (held.threads, held.sockets, held.tasks) == (1, 2, 9)
    assert held.files >= 5
