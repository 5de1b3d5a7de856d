"""The command as users run it: a process, an endpoint over HTTP, a Ray cluster on this machine."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import Gpo


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest file first, so that parallel workers end at about the same time."""
    items.sort(key=lambda item: item.path.name != "test_readme.py")


@pytest.fixture(scope="module")
def gpo() -> Iterator[Gpo]:
    command = Gpo()
    yield command
    command.end()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a name short enough for Ray's sockets below it; ``tmp_path`` is not."""
    folder = Path(tempfile.mkdtemp(prefix="gc-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
