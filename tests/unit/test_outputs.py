from __future__ import annotations

from dataclasses import asdict

from actors.search import SearchKey
from cluster.outputs import RunRecord, summary
from gpo.checkpoint import Checkpoint
from gpo.evaluation import Evaluation
from gpo.models import Usage
from gpo.prompt import Prompt
from gpo.score import Score
from gpo.testing.samples import TRAJECTORIES

KEY = SearchKey("task", 0)
CHECKPOINT = Checkpoint(TRAJECTORIES["one step"], {})


def record(checkpoint: Checkpoint) -> RunRecord:
    return RunRecord("run", 0.0, keys=(KEY,), checkpoints={KEY: checkpoint})


def test_the_judge_s_costs_are_told_where_a_model_judged() -> None:
    iso = {"started_at": None, "finished_at": None}
    assert set(summary(record(CHECKPOINT), iso)["llm"]) == {"task", "optimizer"}
    judge = Usage(requests=3, cost_usd=0.5)
    judged = record(CHECKPOINT.with_test(Prompt("x"), Evaluation(Score((1.0,)), Usage(requests=1), judge)))
    assert summary(judged, iso)["llm"]["judge"] == asdict(judge)
    assert judged.usage_by_role()["task"] == CHECKPOINT.spending.task + Usage(requests=1)
