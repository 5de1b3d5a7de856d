from __future__ import annotations

import pytest

from tests.commands import RunGpo, gpo_in_this_process


@pytest.fixture
def gpo() -> RunGpo:
    """The command in this process."""
    return gpo_in_this_process
