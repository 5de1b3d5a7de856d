"""Benchmarks as their authors publish them, one file each."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from gpo.datasets.loaded import LoadedTask


class Release(Protocol):
    """Knows the files of a benchmark's public release."""

    def tasks(self, folder: Path) -> Collection[str]:
        """The tasks whose files lie in a folder that exists, in alphabetical order; none where it holds none."""
        ...

    def load(self, folder: Path, task: str, *, where: str) -> LoadedTask:
        """The examples of one of those tasks, split by the same rule each time.

        Args:
            where: the setting that named the folder, for errors.

        Raises:
            ConfigError: a file is missing, damaged or too short; names the line where it can.
        """
        ...
