"""A small run without its command, and the process IDs of its parts."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import pytest

from cluster.config import RunConfig
from tests.configs import triage_task


class MakeConfig(Protocol):
    def __call__(self, folder: Path, base_url: str, **changes: Any) -> RunConfig: ...


@pytest.fixture(scope="session")
def make_config() -> MakeConfig:
    """A configuration of two trajectories in separate actors, with two replicas and a new cache."""

    def make(folder: Path, base_url: str, **changes: Any) -> RunConfig:
        endpoint = {"base_url": base_url, "max_concurrency": 8}
        config = {
            # Many calls, so that parts can be killed in the middle.
            "preset": "paper",
            "run": {"name": folder.name, "seeds": [0, 1]},
            "models": {"task": {**endpoint, "model": "task-model"}, "optimizer": {**endpoint, "model": "opt-model"}},
            "tasks": [triage_task()],
            "optimizer": {"steps": 3, "candidates": 3},
            "evaluation": {"val_size": 20, "test_size": 30},
            "cluster": {"trajectories_per_actor": 1, "evaluator_replicas": 2},
            "cache": {"path": str(folder / "completions.sqlite")},
        }
        return RunConfig.model_validate({**config, **changes})

    return make


Pids = Callable[[str], list[int]]


@pytest.fixture(scope="session")
def pids() -> Pids:
    """Finds the processes of this test session's cluster by the start of their title, oldest first."""
    mark = f"RAY_AUTH_TOKEN_PATH={os.environ['RAY_AUTH_TOKEN_PATH']}".encode()

    def of(title: str) -> list[int]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                is_ours = mark in (folder / "environ").read_bytes()
                if is_ours and (folder / "cmdline").read_bytes().startswith(title.encode()):
                    found.append(int(folder.name))
        return sorted(found)

    return of
