from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.measuring.processes import Usage, watched

# A daemon, as Ray's are: in a session of its own, and no child of the command any more.
DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        held = bytearray(b"x" * 50_000_000)
        while time.process_time() < 0.5:
            pass
        time.sleep(1.5)
    os._exit(0)
os.wait()
sys.exit(3)
"""


def test_daemons_are_counted_to_their_end(tmp_path: Path) -> None:
    used = watched([sys.executable, "-c", DAEMON], cwd=tmp_path, output=tmp_path / "output.txt")
    assert used.code == 3
    assert used.cpu_s >= 0.4  # what it took since the last look is missed
    assert used.peak_bytes >= 50_000_000
    assert sum(seconds for seconds, _ in used.shares.values()) == used.cpu_s


def test_what_it_prints_is_kept_and_what_takes_too_long_is_killed(tmp_path: Path) -> None:
    output = tmp_path / "output.txt"
    command = [sys.executable, "-c", "import sys, time; print('begun', flush=True); time.sleep(60)"]
    used = watched(command, cwd=tmp_path, output=output, timeout_s=1.0)
    assert used.code < 0
    assert output.read_text("utf-8") == "begun\n"


def test_time_between_two_looks_is_shared_out() -> None:
    used = Usage(0.0, 4.0, [(1.0, 0.5), (2.0, 1.5), (4.0, 1.5)], 0, 0, {}, 0)
    assert [used.cpu_until_s(time_s) for time_s in (0.5, 1.0, 1.5, 3.0, 9.0)] == [0.0, 0.5, 1.0, 1.5, 1.5]
