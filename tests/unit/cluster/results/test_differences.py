"""Whether the best prompt is better than the initial prompt, in words and in the files."""

from __future__ import annotations

import pytest

from actors.search import SearchKey
from cluster.results import differences
from cluster.results.differences import difference_lines, difference_summary
from cluster.results.outputs import summary
from cluster.results.run_record import RunRecord
from gpo.checkpoint import Checkpoint
from gpo.evaluation.evaluator import Evaluation
from gpo.models.protocol import Usage
from gpo.score import Score
from gpo.testing.samples import candidate, trajectory

SEARCH = trajectory(candidate("before", 0.1), [candidate("after", 0.9)])


def ended(initial: tuple[float | None, ...], best: tuple[float | None, ...]) -> Checkpoint:
    scores = {"before": Score(initial), "after": Score(best)}
    prompts = (SEARCH.initial.prompt, SEARCH.best.prompt)
    return Checkpoint(SEARCH, {prompt.id: Evaluation(scores[prompt.text], Usage()) for prompt in prompts})


BETTER = ended((0.0,) * 20 + (1.0,) * 4, (1.0,) * 19 + (0.0,) + (1.0,) * 4)
UNCLEAR = ended((0.0, 0.0, 1.0, 1.0), (1.0, 1.0, 0.0, 1.0))
EQUAL = ended((0.0, 1.0), (0.0, 1.0))
WORSE = ended((1.0,) * 8, (0.0,) * 8)


def record(*checkpoints: Checkpoint) -> RunRecord:
    keys = tuple(SearchKey("desk", seed) for seed in range(len(checkpoints)))
    return RunRecord("run", 0.0, keys=keys, checkpoints=dict(zip(keys, checkpoints, strict=True)))


def test_the_summary_has_the_difference_and_says_that_it_is_beyond_chance() -> None:
    (row,) = summary(record(BETTER), {"started_at": None, "finished_at": None})["trajectories"]
    assert row["test_difference"] == {
        "difference": 0.7917,
        "interval": {"level": 0.9, "low": 0.562, "high": 0.8995},
        "p_value": 3.815e-06,
        "better": 19,
        "worse": 0,
        "scored": 24,
        "sentence": "On test, the best prompt scores 79.2 points higher than the initial prompt "
        "(90 % interval: +56.2 to +90.0; 19 of 24 examples better, 0 worse). "
        "The difference is beyond chance (p < 0.001).",
    }


@pytest.mark.parametrize(
    ("checkpoint", "words"),
    [
        (UNCLEAR, ("25.0 points higher than", "2 of 4 examples better, 1 worse", "could be chance (p = 1).")),
        (WORSE, ("100.0 points lower than", "0 of 8 examples better, 8 worse", "beyond chance (p = 0.0078).")),
        (EQUAL, ("scores the same as the initial prompt", "No difference was found.")),
    ],
)
def test_the_sentence_says_what_was_found(checkpoint: Checkpoint, words: tuple[str, ...]) -> None:
    (line,) = difference_lines(record(checkpoint))
    for word in words:
        assert word in line


def test_there_is_no_difference_without_two_prompts_and_two_scores() -> None:
    unchanged = Checkpoint(trajectory(candidate("before", 0.9), [candidate("after", 0.1)]), {})
    unchanged = unchanged.with_test(unchanged.trajectory.best.prompt, Evaluation(Score((1.0,)), Usage()))
    half = Checkpoint(SEARCH, {}).with_test(SEARCH.initial.prompt, Evaluation(Score((1.0,)), Usage()))
    apart = ended((None, 1.0), (1.0, None))
    made = record(unchanged, half, apart)
    assert difference_lines(made) == []
    assert difference_summary(made) == ""
    for row in summary(made, {"started_at": None, "finished_at": None})["trajectories"]:
        assert row["test_difference"] is None


def test_many_trajectories_share_a_sentence_and_few_have_their_own() -> None:
    one, other = difference_lines(record(BETTER, UNCLEAR))
    assert one.startswith("desk/0: On test, the best prompt scores 79.2 points higher")
    assert other.startswith("desk/1: ")
    assert difference_lines(record(BETTER, UNCLEAR, BETTER)) == [
        "On test, the best prompt is better than the initial prompt in 2 of 3 searches, "
        f"beyond chance (p < {differences.SIGNIFICANT} in each)."
    ]
    assert " in 1 of 3 searches and worse in 1, beyond" in difference_summary(record(BETTER, UNCLEAR, WORSE))
