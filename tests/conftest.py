from __future__ import annotations

import pytest
from hypothesis import settings

# Before anything imports them, so that their assertions explain themselves as those of a test module do.
pytest.register_assert_rewrite("gpo.testing.contracts")

settings.register_profile("deterministic", derandomize=True, deadline=None, database=None)
settings.load_profile("deterministic")
