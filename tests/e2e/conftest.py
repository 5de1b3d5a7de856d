"""The command as users run it: a process, an endpoint over HTTP, a Ray cluster on this machine."""

from __future__ import annotations

from collections.abc import Iterator

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
