"""The first and the last moments of a command: Ctrl-C and closed pipes show no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.cli import INTERRUPTED
from tests.paths import ROOT

_CLI = [sys.executable, "-m", "cluster.cli"]


def _environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **variables}


@pytest.mark.parametrize("module", ["typer", "cluster.config"])
def test_ctrl_c_during_an_import_is_one_line(module: str, tmp_path: Path) -> None:
    """A module that is slow to import stands for all."""
    (tmp_path / "sitecustomize.py").write_text(f"""
import sys, time
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            print("importing", flush=True)
            time.sleep(30)
sys.meta_path.insert(0, Slow())
""")
    environment = _environment(PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
    started = subprocess.Popen(
        [*_CLI, "run", str(tmp_path / "none.yaml")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert started.stdout is not None
    assert started.stdout.readline() == "importing\n"
    time.sleep(0.2)
    started.send_signal(signal.SIGINT)
    _, stderr = started.communicate(timeout=30)
    assert (started.returncode, stderr) == (INTERRUPTED, "Interrupted.\n")


@pytest.mark.parametrize("arguments", [["--help"], ["run", "none.yaml"]])
def test_a_closed_pipe_is_silent(arguments: list[str], tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [*_CLI, *arguments], stdout=writing, stderr=subprocess.PIPE, text=True, env=_environment(), cwd=tmp_path,
        check=False, timeout=60,
    )  # fmt: skip
    os.close(writing)
    assert "Traceback" not in ended.stderr
    assert "Broken pipe" not in ended.stderr
    assert "BrokenPipeError" not in ended.stderr


def test_a_closed_pipe_for_errors_is_no_second_error(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [*_CLI, "run", "none.yaml"], stdout=subprocess.PIPE, stderr=writing, text=True, env=_environment(),
        cwd=tmp_path, check=False, timeout=60,
    )  # fmt: skip
    os.close(writing)
    assert (ended.returncode in (1, 2), ended.stdout) == (True, "")
