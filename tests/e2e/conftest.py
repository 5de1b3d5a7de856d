"""The command as users run it: a process, an endpoint over HTTP, a Ray cluster on this machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.commands import Gpo


@pytest.fixture(scope="module")
def gpo() -> Iterator[Gpo]:
    command = Gpo()
    yield command
    command.end()
