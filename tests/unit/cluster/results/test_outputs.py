from __future__ import annotations

from dataclasses import asdict, replace
from io import StringIO

from rich.console import Console

from actors.search import SearchKey
from cluster.results.outputs import step_lines, summary
from cluster.results.results_table import results_table, scoring_line, unscored_line
from cluster.results.run_record import RunRecord
from gpo.checkpoint import Checkpoint
from gpo.evaluation.evaluator import Evaluation
from gpo.models.protocol import Usage
from gpo.prompt import Prompt
from gpo.score import Partial, Score
from gpo.testing.samples import TRAJECTORIES, candidate, trajectory
from gpo.trajectory import Candidate, Direction, Failure

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


def test_failures_are_recorded_with_their_reasons() -> None:
    search = TRAJECTORIES["one step"]
    failure = Failure("2 + 2", "4", "Five.", "no number was found")
    step = replace(search.steps[0], direction=Direction(failures=(failure,)))
    (line,) = step_lines(record(Checkpoint(replace(search, steps=(step,)), {})))
    assert line["failures"] == [{"input": "2 + 2", "target": "4", "answer": "Five.", "reason": "no number was found"}]
    (plain,) = step_lines(record(Checkpoint(search, {})))
    assert plain["failures"] == []


def test_scores_come_with_their_intervals_and_numbers_of_examples() -> None:
    """24 right answers of 24 were shown as 100.0 ± 0.0."""
    search = trajectory(candidate("Think.", *[1.0] * 12, *[0.0] * 12), [candidate("Reason.", *[1.0] * 24)])
    checkpoint = Checkpoint(search, {}).with_test(Prompt("Reason."), Evaluation(Score((1.0, None, 0.0)), Usage()))
    (row,) = summary(record(checkpoint), {"started_at": None, "finished_at": None})["trajectories"]
    assert row["best"] == {
        "prompt": "Reason.",
        "val": 1.0,
        "val_interval": row["best"]["val_interval"],
        "val_expected": row["best"]["val_expected"],
        "val_scored": 24,
        "test": 0.5,
        "test_interval": {"level": 0.9, "low": 0.1209, "high": 0.8791},
        "test_scored": 2,
    }
    # The choice of the best of two prompts is allowed for.
    assert 0.8 < row["best"]["val_expected"] < 1.0
    assert row["best"]["val_interval"]["low"] < 0.8987
    assert row["best"]["val_interval"]["high"] < 1.0
    assert (row["initial"]["test"], row["initial"]["test_interval"], row["initial"]["test_scored"]) == (None,) * 3
    console = Console(file=StringIO(), width=120)
    console.print(results_table(record(checkpoint)))
    low, high = (round(100 * row["best"]["val_interval"][end]) for end in ("low", "high"))
    assert f"{low}–{high}, n=24" in console.file.getvalue()
    assert "val is too high on average" in " ".join(console.file.getvalue().split())


def test_a_table_without_scores_does_not_explain_scores() -> None:
    console = Console(file=StringIO(), width=120)
    console.print(results_table(RunRecord("run", 0.0, keys=(SearchKey("task", 0),))))
    assert "too high" not in " ".join(console.file.getvalue().split())


def test_a_run_says_how_many_answers_its_scoring_saved() -> None:
    estimated = Candidate(Prompt("Guess."), Score((1.0, None, *[None] * 1998), Partial(1998, 0.8, 0.1)))
    search = trajectory(candidate("Think.", *[0.0] * 2000), [candidate("Reason.", *[1.0] * 2000), estimated])
    assert scoring_line(record(Checkpoint(search, {}))) == (
        "Scoring: 4,002 answers on val; scoring every prompt on all of val would have taken 6,000."
    )


def test_full_scoring_saves_no_answers() -> None:
    assert scoring_line(record(CHECKPOINT)) is None


def test_unscored_answers_are_counted() -> None:
    assert unscored_line(record(CHECKPOINT)) is None
    search = trajectory(candidate("Think.", 0.5, None, 1.0), [candidate("Reason.", None, None, 1.0)])
    tested = Checkpoint(search, {}).with_test(Prompt("Think."), Evaluation(Score((1.0, None)), Usage()))
    line = unscored_line(record(tested))
    assert line == "4 of 8 answers have no score, since their calls failed; the means leave them out."
