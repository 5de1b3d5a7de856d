from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measuring.kills import PROGRAMS, Part
from benchmarks.measuring.processes import Process
from benchmarks.measuring.resources import Resources, Tolerance, growths, read_resources
from benchmarks.soak import PARTS, table


def _resources(program: str = "TrajectoryActor", **changes: Any) -> Resources:
    usual = {"private": 100_000_000, "rss": 150_000_000, "threads": 10, "files": 50, "sockets": 20, "tasks": 200}
    return Resources(program, **{**usual, "must_count": True, **changes})


@pytest.mark.parametrize(
    ("changes", "grown"),
    [
        ({}, []),
        ({"private": 110_000_000, "threads": 14, "files": 66, "tasks": 456}, []),
        ({"private": 110_000_001}, ["memory"]),
        ({"threads": 15, "files": 67}, ["threads", "files"]),
        ({"tasks": 457}, ["tasks"]),
        ({"tasks": None}, ["tasks not counted"]),
        ({"tasks": None, "private": 110_000_001}, ["memory", "tasks not counted"]),
        ({"private": 50_000_000, "files": 0, "tasks": 0}, []),
    ],
)
def test_growth_beyond_the_tolerance_is_named(changes: dict[str, Any], grown: list[str]) -> None:
    assert growths(_resources(), _resources(**changes), Tolerance(), 64) == grown


def test_resources_of_a_process_are_read(tmp_path: Path) -> None:
    script = "import socket; held, ends = bytearray(b'x' * 50_000_000), socket.socketpair(); print(); input()"
    now_s = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (tmp_path / str(process.pid)).write_text(f"{now_s - 5} 7\n{now_s} 9\n", encoding="ascii")
        processes = [Process(process.pid, "0", "a program"), Process(2**30, "0", "gone")]
        (resources,) = read_resources(processes, tmp_path).values()
        (actor,) = read_resources([Process(process.pid, "0", "TrajectoryActor")], tmp_path).values()
        (tmp_path / str(process.pid)).write_text(f"{now_s - 600} 9\n", encoding="ascii")
        (stale,) = read_resources(processes, tmp_path).values()
        (uncounted,) = read_resources(processes, tmp_path / "none").values()
        process.communicate(b"\n")
    assert resources.program == "a program"
    assert 50_000_000 < resources.private <= resources.rss
    assert (resources.threads, resources.sockets, resources.tasks, resources.must_count) == (1, 2, 9, False)
    assert resources.files >= 5
    assert actor.must_count
    assert (stale.tasks, uncounted.tasks) == (None, None)


def _all_parts() -> dict[int, Resources]:
    names = {kind: name for name, kind in PROGRAMS.items()}
    return {number: _resources(names[kind]) for number, kind in enumerate(sorted(PARTS))}


def test_a_soak_is_flat_if_every_part_is_in_both_readings_and_flat() -> None:
    daemon = _resources("raylet", tasks=None, must_count=False)
    before = {**_all_parts(), 90: daemon, 91: _resources("IDLE", tasks=None, must_count=False)}
    text, is_flat = table(before, {**_all_parts(), 90: daemon}, [2, 10])
    assert is_flat
    assert text.endswith("Started or ended in between: IDLE.")
    assert text.count("| yes |") == len(PARTS) + 1


def test_a_soak_is_not_flat_if_a_part_was_replaced_is_missing_or_was_not_counted() -> None:
    whole = _all_parts()
    (actor,) = [pid for pid, one in whole.items() if one.program == "TrajectoryActor"]
    rest = {pid: one for pid, one in whole.items() if pid != actor}
    text, is_flat = table({**whole, 98: _resources()}, {**whole, 99: _resources()}, [2, 10])
    assert (is_flat, "Started or ended in between: TrajectoryActor, TrajectoryActor." in text) == (False, True)
    text, is_flat = table(whole, {**rest, actor: _resources("IDLE")}, [2, 10])
    assert (is_flat, f"Not in both readings: {Part.ACTOR}." in text) == (False, True)
    assert not table(rest, rest, [2, 10])[1]
    assert not table({}, {}, [2, 10])[1]
    text, is_flat = table(whole, {**rest, actor: _resources(tasks=None)}, [2, 10])
    assert (is_flat, "no: tasks not counted" in text) == (False, True)
