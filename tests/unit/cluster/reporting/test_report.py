from __future__ import annotations

import json
import re
from base64 import b64decode
from html import unescape
from typing import Any

import pytest

from actors.search import SearchKey
from cluster.reporting.candidates import BEST, DROPPED, WENT_ON, candidate_rows
from cluster.reporting.curves import curves_in_words, curves_picture
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
def test_every_shape_of_a_search_makes_a_page(search: Any) -> None:
    text = page(record(Checkpoint(search, {})))
    known = data(text)
    assert len(known["rows"]) == len(search.history)
    assert search.best.prompt.text in unescape(text)


def test_a_run_that_has_nothing_yet_makes_a_page() -> None:
    empty = RunRecord("run", 0.0, keys=(KEY,), errors={KEY: "lost <b>"})
    text = page(empty)
    assert "lost &lt;b&gt;" in text
    assert data(text)["rows"] == []


def test_what_models_wrote_is_text_and_only_our_script_may_run() -> None:
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
    assert not re.search(r'(src|href)="(?!#|data:)', text)  # nothing comes from elsewhere
    assert "url(" not in text


def test_addresses_lose_what_may_be_secret() -> None:
    config = (
        "models:\n  task:\n    base_url: https://user:canary@host:8600/v1?key=canary\n"
        "  optimizer:\n    base_url: 'http://[canary'\n    model: m\n"
    )
    text = page(record(config=config))
    assert "canary" not in text
    assert "base_url: https://host:8600/v1" in text
    assert "model: m" in text


def test_an_outcome_is_known_where_both_prompts_were_scored() -> None:
    search = trajectory(candidate("a", 0.0, 1.0, 0.5, None, 1.0, 0.0), [candidate("b", 1.0, 0.0, 0.75, 1.0, 1.0, 0.0)])
    checkpoint = Checkpoint(search, {})
    (val,) = outcomes(checkpoint)
    assert (val.split, val.fixed, val.broken) == ("val", (1, 3), (2,))
    assert (val.unchanged, val.right, val.unknown) == (2, 1, 1)
    checkpoint = checkpoint.with_test(Prompt("a"), scored(Score((0.0, 1.0))))
    assert len(outcomes(checkpoint)) == 1
    checkpoint = checkpoint.with_test(Prompt("b"), scored(Score((1.0, 1.0))))
    assert [(one.split, one.fixed, one.broken) for one in outcomes(checkpoint)][1] == ("test", (1,), ())


def test_rows_say_what_each_prompt_was_made_from_and_what_became_of_it() -> None:
    first = trajectory(candidate("a b c"), [dropped("x", 0.1), candidate("a b d", 0.75)], [candidate("a b e", 0.25)])
    rows = candidate_rows(record(Checkpoint(first, {}), Checkpoint(first, {})))
    assert rows["trajectories"] == [["task", 0], ["task", 1]]
    told = [(row[0], row[1], row[2], row[6], row[7], row[8], row[9]) for row in rows["rows"]]
    assert told[:4] == [
        (0, 0, 0.5, WENT_ON, "a b c", None, []),
        (0, 1, 0.1, DROPPED, "x", 0, [0, 3, 0, 1]),
        (0, 1, 0.75, WENT_ON | BEST, "a b d", 0, [2, 3, 2, 3]),
        (0, 2, 0.25, WENT_ON, "a b e", 2, [2, 3, 2, 3]),
    ]
    assert [row[8] for row in rows["rows"][4:]] == [None, 4, 4, 6]


@pytest.mark.parametrize("count", [1, 8, 9])
def test_curves_are_drawn_the_same_every_time_and_name_what_they_show(count: int) -> None:
    curves = [
        (SearchKey("$task_{", seed), Checkpoint(TRAJECTORIES["several steps, with ties"], {})) for seed in range(count)
    ]
    url = curves_picture(curves)
    assert url == curves_picture(curves)
    svg = b64decode(url.partition(",")[2]).decode()
    assert svg.startswith("<svg")
    assert "prefers-color-scheme" in svg
    assert "<script" not in svg
    assert ("seed 0" in svg) == (count <= 8)
    words = curves_in_words(curves)
    assert "50.0 to 75.0 %" in words or "50.0 to 50.0 % at the start, 75.0 to 75.0 %" in words
