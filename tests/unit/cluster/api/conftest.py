from __future__ import annotations

import pytest

from tests.commands import RunGpo, gpo_in_this_process


@pytest.fixture
def gpo_command() -> RunGpo:
    """The command in this process: it must end without starting Ray."""
    return gpo_in_this_process
