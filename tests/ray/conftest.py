"""What tests of recovery need: a small run without the command around it, and the processes of its parts."""

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
    """A configuration of two trajectories, in an actor each, with two replicas and a cache of their own."""

    def make(folder: Path, base_url: str, **changes: Any) -> RunConfig:
        place = {"base_url": base_url, "max_concurrency": 8}
        config = {
            "run": {"name": folder.name, "seeds": [0, 1]},
            "models": {"task": {**place, "model": "task-model"}, "optimizer": {**place, "model": "opt-model"}},
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
    """The processes of this session's own cluster whose title begins so, the oldest first."""
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
