from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import yaml

from benchmarks.measuring.disturbed import Disturbed, Size, disturbed, found
from benchmarks.measuring.kills import Part, Plan
from benchmarks.simulated_endpoint import SimulatedEndpoint
from cluster.config.loading import load_config
from cluster.runs.searches import build_searches
from cluster.session.models import Access, build_evaluators, build_tasks
from gpo.data.task import Split
from gpo.limits.limiter import LocalLimiter

SIZE = Size(tasks=2, seeds=2, steps=2, candidates=3)
PLAN = [(1.0, Part.REPLICA), (2.0, Part.ACTOR), (0.5, Part.LIMITER), (1.5, Part.CONTROLLER), (1.5, Part.DRIVER)]
"""One after the other; the rest takes some seconds more."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("chaos") / "run"


@pytest.fixture(scope="module")
def row(folder: Path) -> Disturbed:
    """A run whose parts are killed, and then its driver; and its resumption."""
    return disturbed(folder, "parts and driver", 0, lambda _: Plan(PLAN), None, size=SIZE)


async def _best_without_a_cluster(config_path: Path) -> dict[tuple[str, int], tuple[str, float, float]]:
    config = load_config(config_path)
    tasks, access = build_tasks(config), Access({}, LocalLimiter(), "alone")
    evaluators = {evaluator.task.name: evaluator for evaluator in build_evaluators(config, tasks, access)}
    best = {}
    for search in build_searches(config, tasks, evaluators, access):
        trajectory = await search.gpo.start(search.initial)
        async for later in search.gpo.run(trajectory):
            trajectory = later
        prompt, score = trajectory.best.prompt, trajectory.best.score
        (test,) = await evaluators[search.key.task].evaluate([prompt], Split.TEST)
        best[search.key.task, search.key.seed] = (prompt.text, round(score.mean, 4), round(test.score.mean, 4))
    return best


def test_it_ends_as_if_nothing_had_happened(row: Disturbed) -> None:
    assert dict(row.kills) == {part: 1 for _, part in PLAN}
    assert (row.code, row.status, row.sittings, row.failure) == (0, "completed", 2, "")
    assert not row.left


def test_it_finds_what_a_search_without_a_cluster_finds(row: Disturbed, folder: Path) -> None:
    rows = found(folder / "results")["trajectories"]
    best = {(one["task"], one["seed"]): tuple(one["best"][name] for name in ("prompt", "val", "test")) for one in rows}
    config = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
    with SimulatedEndpoint() as endpoint:
        for model in config["models"].values():
            model["base_url"] = endpoint.base_url
        path = folder / "alone.yaml"
        path.write_text(yaml.safe_dump({**config, "cache": {"kind": "none"}}), encoding="utf-8")
        assert best == asyncio.run(_best_without_a_cluster(path))


def test_no_answer_is_paid_for_twice_but_those_that_were_lost_at_a_kill(row: Disturbed) -> None:
    assert row.task is not None
    assert row.optimizer is not None
    assert (row.task.beyond, row.optimizer.beyond) == (0, 0)
    assert row.task.in_flight + row.task.unwritten <= 3 * SIZE.at_once  # a replica, an actor, and everything
