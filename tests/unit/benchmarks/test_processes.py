from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from benchmarks.measuring.commands import CommandRunner
from benchmarks.measuring.processes import Process, ProcessGroup, Usage, start_marked

# Starts another process in a new session and without the mark, and ends before it.
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env={}, start_new_session=True)
print(child.pid, flush=True)
time.sleep(0.5)
"""


def test_cpu_time_between_two_readings_is_interpolated() -> None:
    used = Usage(0.0, 4.0, [(1.0, 0.5), (2.0, 1.5), (4.0, 1.5)], 0, 0, {}, 0)
    assert [used.cpu_until_s(time_s) for time_s in (0.5, 1.0, 1.5, 3.0, 9.0)] == [0.0, 0.5, 1.0, 1.5, 1.5]


def test_children_without_the_mark_belong_to_the_group_and_their_end_is_recorded(tmp_path: Path) -> None:
    group = ProcessGroup("one")
    command = [sys.executable, "-c", PARENT]
    with start_marked(command, "one", cwd=tmp_path, output=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        seen = {process.pid for process in group.refresh()}
        assert {parent.pid, child} <= seen
        assert not ProcessGroup("two").refresh()
        parent.wait()
    orphans = {process.pid: process for process in group.refresh()}
    assert parent.pid not in orphans
    assert not Process(child, "another", "").kill(), "the ID was reused by another process"
    assert orphans[child].kill()
    deadline = time.monotonic() + 20
    while group.refresh():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (started,) = [started for pid, started in group.lifetimes if pid == child]
    seen_s, missed_s = group.lifetimes[child, started]
    assert missed_s is not None
    assert seen_s <= missed_s
    assert group.ends(orphans[child].program)[child] == (seen_s, missed_s)


def test_a_run_ends_with_its_command_and_remaining_processes_can_be_killed(tmp_path: Path) -> None:
    runner = CommandRunner()
    result = runner.run([sys.executable, "-c", PARENT], cwd=tmp_path, output=tmp_path / "output.txt")
    assert result.code == 0
    assert result.started_s < result.ended_s
    assert runner.wait_until_gone(0.3) >= 0.3
    ((remaining,),) = runner.kill_remaining()
    assert remaining
    assert runner.wait_until_gone(20.0) < 20.0
