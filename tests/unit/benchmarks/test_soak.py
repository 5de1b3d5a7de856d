from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measuring.family import Member
from benchmarks.measuring.kills import PROGRAMS, Part
from benchmarks.measuring.weighing import Holding, Tolerance, growths, weigh
from benchmarks.soak import PARTS, table


def _holding(program: str = "TrajectoryActor", **changes: Any) -> Holding:
    usual = {"own": 100_000_000, "rss": 150_000_000, "threads": 10, "files": 50, "sockets": 20, "tasks": 200}
    return Holding(program, **{**usual, "must_count": True, **changes})


@pytest.mark.parametrize(
    ("changes", "grown"),
    [
        ({}, []),
        ({"own": 110_000_000, "threads": 14, "files": 66, "tasks": 456}, []),
        ({"own": 110_000_001}, ["memory"]),
        ({"threads": 15, "files": 67}, ["threads", "files"]),
        ({"tasks": 457}, ["tasks"]),
        ({"tasks": None}, ["tasks not counted"]),
        ({"tasks": None, "own": 110_000_001}, ["memory", "tasks not counted"]),
        ({"own": 50_000_000, "files": 0, "tasks": 0}, []),
    ],
)
def test_what_grew_is_named(changes: dict[str, Any], grown: list[str]) -> None:
    assert growths(_holding(), _holding(**changes), Tolerance(), 64) == grown


def test_tasks_of_foreign_processes_need_not_be_counted() -> None:
    daemon = _holding("raylet", tasks=None, must_count=False)
    assert growths(daemon, daemon, Tolerance(), 64) == []


def test_a_small_process_may_grow_by_more_than_its_share() -> None:
    assert growths(_holding(own=10_000_000), _holding(own=18_000_000), Tolerance(), 64) == []
    assert growths(_holding(own=10_000_000), _holding(own=18_000_001), Tolerance(), 64) == ["memory"]


def test_what_had_to_be_kept_is_no_leak() -> None:
    assert growths(_holding(), _holding(own=130_000_000), Tolerance(), 64, remembered=20_000_000) == []
    assert growths(_holding(), _holding(own=130_000_001), Tolerance(), 64, remembered=20_000_000) == ["memory"]


def test_a_process_is_weighed(tmp_path: Path) -> None:
    script = "import socket; held, ends = bytearray(b'x' * 50_000_000), socket.socketpair(); print(); input()"
    now_s = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (tmp_path / str(process.pid)).write_text(f"{now_s - 5} 7\n{now_s} 9\n", encoding="ascii")
        members = [Member(process.pid, "0", "a program"), Member(2**30, "0", "gone")]
        (held,) = weigh(members, tmp_path).values()
        (actor,) = weigh([Member(process.pid, "0", "TrajectoryActor")], tmp_path).values()
        (tmp_path / str(process.pid)).write_text(f"{now_s - 600} 9\n", encoding="ascii")
        (stale,) = weigh(members, tmp_path).values()
        (uncounted,) = weigh(members, tmp_path / "none").values()
        process.communicate(b"\n")
    assert held.program == "a program"
    assert 50_000_000 < held.own <= held.rss
    assert (held.threads, held.sockets, held.tasks, held.must_count) == (1, 2, 9, False)
    assert held.files >= 5
    assert actor.must_count
    assert (stale.tasks, uncounted.tasks) == (None, None)


def test_a_worker_of_ray_has_to_count_unless_it_is_idle(tmp_path: Path) -> None:
    with subprocess.Popen(["ray::Proxy", "60"], executable="/bin/sleep") as process:
        while not Path(f"/proc/{process.pid}/cmdline").read_bytes():  # the kernel fills it a moment after the start
            pass
        told = [
            weigh([Member(process.pid, "0", program)], tmp_path)[process.pid].must_count
            for program in ("Proxy", "IDLE")
        ]
        process.kill()
    assert told == [True, False]


def _everybody() -> dict[int, Holding]:
    names = {kind: name for name, kind in PROGRAMS.items()}
    return {number: _holding(names[kind]) for number, kind in enumerate(sorted(PARTS))}


def test_a_soak_is_flat_where_every_part_is_there_twice_and_flat() -> None:
    daemon = _holding("raylet", tasks=None, must_count=False)
    before = {**_everybody(), 90: daemon, 91: _holding("IDLE", tasks=None, must_count=False)}
    text, is_flat = table(before, {**_everybody(), 90: daemon}, [2, 10])
    assert is_flat
    assert text.endswith("Came or went between the two: IDLE.")
    assert text.count("| yes |") == len(PARTS) + 1


def test_a_soak_is_not_flat_where_a_part_was_replaced_is_missing_or_was_not_counted() -> None:
    whole = _everybody()
    (actor,) = [pid for pid, held in whole.items() if held.program == "TrajectoryActor"]
    rest = {pid: held for pid, held in whole.items() if pid != actor}
    text, is_flat = table({**whole, 98: _holding()}, {**whole, 99: _holding()}, [2, 10])
    assert (is_flat, "Came or went between the two: TrajectoryActor, TrajectoryActor." in text) == (False, True)
    text, is_flat = table(whole, {**rest, actor: _holding("IDLE")}, [2, 10])
    assert (is_flat, f"Never weighed twice: {Part.ACTOR}." in text) == (False, True)
    assert not table(rest, rest, [2, 10])[1]
    assert not table({}, {}, [2, 10])[1]
    text, is_flat = table(whole, {**rest, actor: _holding(tasks=None)}, [2, 10])
    assert (is_flat, "no: tasks not counted" in text) == (False, True)
