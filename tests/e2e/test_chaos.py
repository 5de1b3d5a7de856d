from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from benchmarks.measuring.chaos_run import ChaosRun, Size, read_results, run_with_kills
from benchmarks.measuring.kills import Part, Plan
from benchmarks.simulated_endpoint import SimulatedEndpoint
from tests.commands import best_without_a_cluster

pytestmark = pytest.mark.slow

SIZE = Size(tasks=2, seeds=2, steps=2, candidates=3)
PLAN = [(1.0, Part.REPLICA), (2.0, Part.ACTOR), (0.5, Part.LIMITER), (1.5, Part.CONTROLLER), (1.5, Part.DRIVER)]
"""One kill after the other; the rest of the run takes some seconds."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("chaos") / "run"


@pytest.fixture(scope="module")
def row(folder: Path) -> ChaosRun:
    """A run whose parts are killed, then its driver, and that is resumed."""
    return run_with_kills(folder, "parts and driver", 0, lambda _: Plan(PLAN), None, size=SIZE)


def test_a_run_with_kills_completes(row: ChaosRun) -> None:
    assert dict(row.kills) == {part: 1 for _, part in PLAN}
    assert (row.code, row.status, row.attempts, row.failure) == (0, "completed", 2, "")
    assert not row.left


def test_a_run_with_kills_has_the_result_of_a_search_without_a_cluster(row: ChaosRun, folder: Path) -> None:
    rows = read_results(folder / "results")["trajectories"]
    best = {(one["task"], one["seed"]): tuple(one["best"][name] for name in ("prompt", "val", "test")) for one in rows}
    config = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
    with SimulatedEndpoint() as endpoint:
        for model in config["models"].values():
            model["base_url"] = endpoint.base_url
        path = folder / "alone.yaml"
        path.write_text(yaml.safe_dump({**config, "cache": {"kind": "none"}}), encoding="utf-8")
        assert best == best_without_a_cluster(path)


def test_only_answers_lost_at_a_kill_are_paid_for_twice(row: ChaosRun) -> None:
    assert row.task is not None
    assert row.optimizer is not None
    assert (row.task.beyond, row.optimizer.beyond) == (0, 0)
    assert row.task.in_flight + row.task.unwritten <= 3 * SIZE.at_once  # a replica, an actor, and everything
