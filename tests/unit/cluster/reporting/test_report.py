from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape
from typing import Any

import pytest

from actors.search import SearchKey
from cluster.reporting.candidates import ACCEPTED, BEST, DROPPED, FIRST, candidate_rows
from cluster.reporting.curves import curves_in_words, curves_svg
from cluster.reporting.outcomes import outcomes
from cluster.reporting.page import report
from cluster.results.outputs import summary
from cluster.results.run_record import RunRecord
from gpo.checkpoint import Checkpoint
from gpo.evaluation.evaluator import Evaluation
from gpo.models.protocol import Usage
from gpo.prompt import Prompt
from gpo.score import Score
from gpo.testing.samples import TRAJECTORIES, candidate, dropped, trajectory
from gpo.trajectory import Direction, Failure

KEY = SearchKey("task", 0)
MARKUP = '</script><script>alert(1)</script><img src="x" onerror="alert(2)"> <!-- & "quotes" \u2028'


def record(*checkpoints: Checkpoint, **known: Any) -> RunRecord:
    keys = tuple(SearchKey("task", seed) for seed in range(len(checkpoints)))
    return RunRecord("run", 0.0, keys=keys, checkpoints=dict(zip(keys, checkpoints, strict=True)), **known)


def page(of: RunRecord) -> str:
    return report(of, summary(of, {"started_at": "2026-01-01T00:00:00", "finished_at": None}))


def data(text: str) -> dict[str, Any]:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return dict(json.loads(found))


def scored(split: Score) -> Evaluation:
    return Evaluation(split, Usage())


@pytest.mark.parametrize("search", TRAJECTORIES.values(), ids=TRAJECTORIES.keys())
def test_a_page_is_made_for_every_shape_of_trajectory(search: Any) -> None:
    text = page(record(Checkpoint(search, {})))
    known = data(text)
    assert len(known["rows"]) == len(search.history)
    assert search.best.prompt.text in unescape(text)


def test_a_page_is_made_for_a_run_without_checkpoints() -> None:
    empty = RunRecord("run", 0.0, keys=(KEY,), errors={KEY: "lost <b>"})
    text = page(empty)
    assert "lost &lt;b&gt;" in text
    assert data(text)["rows"] == []


def test_texts_of_models_are_escaped_and_only_our_script_may_run() -> None:
    search = trajectory(candidate(MARKUP), [candidate(f"{MARKUP} more", 0.9)])
    text = page(record(Checkpoint(search, {}), config=f"prompt: {MARKUP}\n"))
    assert text.count("<script") == 2
    assert text.count("</script>") == 2
    assert "<img src" in text  # the curves
    assert 'onerror="' not in text
    assert [row[7] for row in data(text)["rows"]] == [MARKUP, f"{MARKUP} more"]
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', text)
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy
    assert not re.search(r'(src|href)="(?!#|data:)', text)  # nothing is loaded
    assert "url(" not in text


def test_failures_are_escaped_and_abridged() -> None:
    search = trajectory(candidate("a"), [candidate("b", 0.9)], [candidate("c", 0.1)])
    failure = Failure(MARKUP, "4", "x" * 2000, "")
    steps = (replace(search.steps[0], direction=Direction(failures=(failure, failure))), search.steps[1])
    text = page(record(Checkpoint(trajectory(candidate("z")), {}), Checkpoint(replace(search, steps=steps), {})))
    assert text.count("<script") == text.count("</script>") == 2
    assert list(data(text)["failures"]) == ["1/1"]
    shown, _ = data(text)["failures"]["1/1"]
    assert [shown[0], shown[1], len(shown[2]), shown[3]] == [MARKUP, "4", 500, ""]


def test_secrets_in_addresses_are_removed() -> None:
    config = (
        "models:\n  task:\n    base_url: https://user:canary@host:8600/v1?key=canary\n"
        "  optimizer:\n    base_url: 'http://[canary'\n    model: m\n"
    )
    text = page(record(config=config))
    assert "canary" not in text
    assert "base_url: https://host:8600/v1" in text
    assert "model: m" in text


def test_scores_are_shown_with_intervals_and_the_choice_by_val_is_named() -> None:
    search = trajectory(candidate("a", *[0.0] * 24), [candidate("b", *[1.0] * 24)])
    tests = {one.prompt.id: scored(one.score) for one in (search.initial, search.best)}
    text = page(record(Checkpoint(search, tests)))
    assert "89.9–100.0, 24 examples" in text
    assert "±" not in text
    assert "The difference is beyond chance (p &lt; 0.001)." in text
    assert "in 1 of 1 searches, beyond chance (p &lt; 0.05 in each)" in text
    assert "chosen by its <i>val</i> score, so this score is too\nhigh on average" in text


def test_outcomes_need_scores_of_both_prompts() -> None:
    search = trajectory(candidate("a", 0.0, 1.0, 0.5, None, 1.0, 0.0), [candidate("b", 1.0, 0.0, 0.75, 1.0, 1.0, 0.0)])
    checkpoint = Checkpoint(search, {})
    (val,) = outcomes(checkpoint)
    assert (val.split, val.fixed, val.broken) == ("val", (1, 3), (2,))
    assert (val.unchanged, val.right, val.unscored) == (2, 1, 1)
    checkpoint = checkpoint.with_test(Prompt("a"), scored(Score((0.0, 1.0))))
    assert len(outcomes(checkpoint)) == 1
    checkpoint = checkpoint.with_test(Prompt("b"), scored(Score((1.0, 1.0))))
    assert [(one.split, one.fixed, one.broken) for one in outcomes(checkpoint)][1] == ("test", (1,), ())


def test_rows_contain_parent_and_flags_of_each_prompt() -> None:
    first = trajectory(candidate("a b c"), [dropped("x", 0.1), candidate("a b d", 0.75)], [candidate("a b e", 0.25)])
    rows = candidate_rows(record(Checkpoint(first, {}), Checkpoint(first, {})))
    assert rows["trajectories"] == [["task", 0], ["task", 1]]
    shown = [(row[0], row[1], row[2], row[6], row[7], row[8], row[9]) for row in rows["rows"]]
    assert shown[:4] == [
        (0, 0, 0.5, ACCEPTED, "a b c", None, []),
        (0, 1, 0.1, DROPPED, "x", 0, [0, 3, 0, 1]),
        (0, 1, 0.75, ACCEPTED | BEST, "a b d", 0, [2, 3, 2, 3]),
        (0, 2, 0.25, ACCEPTED, "a b e", 2, [2, 3, 2, 3]),
    ]
    assert [row[8] for row in rows["rows"][4:]] == [None, 4, 4, 6]
    assert rows["rows"][0][3] == [0.0728, 0.9272]
    assert rows["rows"][1][3] is None


@pytest.mark.parametrize("count", [1, 8, 9])
def test_curves_are_reproducible_and_described(count: int) -> None:
    curves = [
        (SearchKey("$task_{", seed), Checkpoint(TRAJECTORIES["several steps, with ties"], {})) for seed in range(count)
    ]
    svg = curves_svg(curves)
    assert svg == curves_svg(curves)
    assert svg.startswith("<svg")
    assert "prefers-color-scheme" in svg
    assert "<script" not in svg
    assert ("seed 0" in svg) == (count <= 8)
    words = curves_in_words(curves)
    assert "50.0 to 75.0 %" in words or "50.0 to 50.0 % at the start, 75.0 to 75.0 %" in words


def test_first_prompts_are_marked() -> None:
    plain = trajectory(candidate("a b c", 0.5), [candidate("x y z", 0.75)], [candidate("x y", 0.25)])
    given = replace(plain, steps=(replace(plain.steps[0], step_size=None, has_first_prompts=True), plain.steps[1]))
    rows = candidate_rows(record(Checkpoint(given, {})))["rows"]
    assert [row[6] & FIRST for row in rows] == [0, FIRST, 0]
    assert "x y z" in page(record(Checkpoint(given, {})))
