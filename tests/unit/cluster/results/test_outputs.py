from __future__ import annotations

from dataclasses import asdict

from actors.search import SearchKey
from cluster.results.outputs import step_lines, summary
from cluster.results.results_table import unscored_line
from cluster.results.run_record import RunRecord
from gpo.checkpoint import Checkpoint
from gpo.evaluation.evaluator import Evaluation
from gpo.models.protocol import Usage
from gpo.prompt import Prompt
from gpo.score import Score
from gpo.testing.samples import TRAJECTORIES, candidate, trajectory

KEY = SearchKey("task", 0)
CHECKPOINT = Checkpoint(TRAJECTORIES["one step"], {})


def record(checkpoint: Checkpoint) -> RunRecord:
    return RunRecord("run", 0.0, keys=(KEY,), checkpoints={KEY: checkpoint})


def test_judge_usage_is_listed_only_where_a_model_judged() -> None:
    iso = {"started_at": None, "finished_at": None}
    assert set(summary(record(CHECKPOINT), iso)["llm"]) == {"task", "optimizer"}
    judge = Usage(requests=3, cost_usd=0.5)
    judged = record(CHECKPOINT.with_test(Prompt("x"), Evaluation(Score((1.0,)), Usage(requests=1), judge)))
    assert summary(judged, iso)["llm"]["judge"] == asdict(judge)
    assert judged.usage_by_role()["task"] == CHECKPOINT.spending.task + Usage(requests=1)


def test_a_dropped_candidate_is_marked() -> None:
    checkpoint = Checkpoint(TRAJECTORIES["candidates that were dropped"], {})
    first, second = step_lines(record(checkpoint))
    rows = [(line["prompt"], line["val"], line["dropped"], line["left_out"]) for line in first["candidates"]]
    assert rows == [("Think.", 1.0, True, 1), ("Reason.", 0.75, False, 0), ("Guess.", 0.0, True, 1)]
    assert [line["unscored"] for line in first["candidates"]] == [0, 0, 0]
    assert (first["successor"], second["successor"]) == ("Reason.", "Reason.")
    (row,) = summary(record(checkpoint), {"started_at": None, "finished_at": None})["trajectories"]
    assert row["best"]["prompt"] == "Reason."
    assert (row["samples"]["candidates"], row["samples"]["dropped"]) == (4, 3)


def test_unscored_answers_are_counted() -> None:
    assert unscored_line(record(CHECKPOINT)) is None
    search = trajectory(candidate("Think.", 0.5, None, 1.0), [candidate("Reason.", None, None, 1.0)])
    tested = Checkpoint(search, {}).with_test(Prompt("Think."), Evaluation(Score((1.0, None)), Usage()))
    line = unscored_line(record(tested))
    assert line == "4 of 8 answers have no score, since their calls failed; the means leave them out."
