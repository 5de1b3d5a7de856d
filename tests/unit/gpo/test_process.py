from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from gpo import process as process_mark
from gpo.process import is_gone
from tests.paths import ROOT

TELLS_ITS_MARK = "from gpo.process import process_mark; print(process_mark(), flush=True); input()"


def test_a_process_is_gone_once_it_has_ended_and_not_before() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", TELLS_ITS_MARK], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        mark = process.stdout.readline().rstrip("\n")
        assert not is_gone(mark)
        process.kill()
        process.stdout.read()
        process.wait()
        assert is_gone(mark)


def test_another_process_of_the_same_number_is_not_taken_for_it() -> None:
    machine, number, started = process_mark.process_mark().rsplit(" ", 2)
    assert not is_gone(f"{machine} {number} {started}")
    assert is_gone(f"{machine} {number} {int(started) + 1}")


def test_a_process_that_cannot_be_looked_at_is_not_taken_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    mark = process_mark.process_mark()
    with monkeypatch.context() as few:
        few.setattr("gpo.process._PROC", Path("/hidden"))  # as other users' processes are, where they are hidden
        assert not is_gone(mark)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))  # no file can be opened
    try:
        assert not is_gone(mark)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("mark", ["", "elsewhere 1 2", " 1 2", "no mark at all"])
def test_nobody_of_whom_nothing_can_be_known_is_gone(mark: str) -> None:
    assert not is_gone(mark)
    machine = process_mark.process_mark().partition(" ")[0]
    assert not is_gone(f"{machine} x y")
