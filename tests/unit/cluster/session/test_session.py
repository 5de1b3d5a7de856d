from __future__ import annotations

import pytest

from actors.trajectory_actor import TrajectoryActor
from cluster.config.run import RunConfig
from cluster.session.session import preloaded
from tests.configs import small_config, triage_task


@pytest.mark.parametrize("by", ["relevance", "mixed", "recency"])
def test_an_actor_can_load_everything_that_it_preloads(by: str) -> None:
    direction = {"trajectory": {"kind": "retrieval", "by": by}}
    config = RunConfig.model_validate(
        {**small_config("http://127.0.0.1:9/v1"), "tasks": [triage_task()], "optimizer": {"direction": direction}}
    )
    names = preloaded(config)
    assert ("gpo.models.embedding:word_vectors" in names) == (by != "recency")
    TrajectoryActor(names)
