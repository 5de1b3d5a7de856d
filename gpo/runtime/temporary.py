"""Private folders for temporary files. Those of a process that was killed are removed by the next one."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

_LOCK = "lock"


class PrivateFolder:
    """A new folder that only this user can open.

    This process locks a file in it, and the system releases the lock when the process ends, however that happens.
    Where the file system has no locks, a folder that was left behind stays.

    Args:
        prefix: of its name; folders with this prefix that were left behind are removed.
        parent: where it is; by default the system's folder for temporary files.

    Attributes:
        path: absolute.

    Raises:
        OSError: no folder can be made there.
    """

    def __init__(self, prefix: str, parent: str | None = None) -> None:
        self.path, self._pid = Path(tempfile.mkdtemp(prefix=prefix, dir=parent)).absolute(), os.getpid()
        with suppress(OSError):
            _remove_left_behind(self.path.parent, prefix)
        self._lock: int | None = None
        with suppress(OSError):
            # It gets its name when it is locked: others would take the folder for one that was left behind.
            unlocked = self.path / f"{_LOCK}.new"
            self._lock = os.open(unlocked, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            unlocked.rename(self.path / _LOCK)

    def remove(self) -> None:
        """Remove the folder with all its files. A forked child of this process removes nothing."""
        if os.getpid() != self._pid:
            return
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _remove_left_behind(parent: Path, prefix: str) -> None:
    with os.scandir(parent) as entries:
        folders = [
            entry.path
            for entry in entries
            if entry.name.startswith(prefix)
            and entry.is_dir(follow_symlinks=False)
            and entry.stat(follow_symlinks=False).st_uid == os.geteuid()
        ]
    for folder in folders:
        with suppress(OSError):  # it is in use, or another process removes it
            lock = os.open(f"{folder}/{_LOCK}", os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
