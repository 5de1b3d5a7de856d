from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from gpo.runtime.temporary import PrivateFolder
from tests.paths import ROOT

_KILLED = """
import os, signal, sys
from gpo.runtime.temporary import PrivateFolder

PrivateFolder("one-", sys.argv[1]), PrivateFolder("two-", sys.argv[1])
os.kill(os.getpid(), signal.SIGKILL)
"""


def _leave_behind(parent: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(parent)], cwd=ROOT, check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(parent.iterdir())) == 2


def test_only_this_user_can_open_it_and_it_can_be_removed(tmp_path: Path) -> None:
    folder = PrivateFolder("one-", str(tmp_path))
    assert folder.path.parent == tmp_path
    assert folder.path.stat().st_mode & 0o777 == 0o700
    (folder.path / "file").touch()
    folder.remove()
    assert not folder.path.exists()
    folder.remove()


def test_a_folder_of_a_killed_process_is_removed_by_the_next_one_with_its_prefix(tmp_path: Path) -> None:
    _leave_behind(tmp_path)
    folder = PrivateFolder("one-", str(tmp_path))
    assert sorted(path.name[:4] for path in tmp_path.iterdir()) == ["one-", "two-"]
    assert folder.path.exists()


def test_folders_in_use_and_those_of_others_stay(tmp_path: Path) -> None:
    in_use, theirs = PrivateFolder("one-", str(tmp_path)), tmp_path / "one-theirs"
    theirs.mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "lock").touch()
    (tmp_path / "one-link").symlink_to(elsewhere)
    PrivateFolder("one-", str(tmp_path)).remove()
    assert {path.name for path in tmp_path.iterdir()} == {in_use.path.name, theirs.name, "one-link", "elsewhere"}
    assert (elsewhere / "lock").exists()


def test_a_forked_child_removes_nothing(tmp_path: Path) -> None:
    folder = PrivateFolder("one-", str(tmp_path))
    if (child := os.fork()) == 0:
        try:
            folder.remove()
        finally:
            os._exit(0)  # never on to the other tests
    os.waitpid(child, 0)
    assert folder.path.exists()
