from __future__ import annotations

import os

import pytest
from hypothesis import settings

from cluster.ray_environment import prepare_environment

# Before anything imports them, so that their assertions explain themselves as those of a test module do.
pytest.register_assert_rewrite("gpo.testing.contracts")

settings.register_profile("deterministic", derandomize=True, deadline=None, database=None)
settings.load_profile("deterministic")

# Before anything imports Ray, which reads its variables once: the cluster of the tests asks for a token, as ours do.
os.environ.pop("RAY_ADDRESS", None)
prepare_environment("local")
