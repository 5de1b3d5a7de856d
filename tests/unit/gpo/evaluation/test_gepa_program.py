"""The bridge to gepa: adapters as they are, with the real package, and with objects that have the same methods."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpo.errors import EvaluationError
from gpo.evaluation.gepa_program import GEPAProgram
from gpo.evaluation.program_function import Answer
from gpo.user_code.functions import passed_functions
from tests.peers import is_missing, result_of


@pytest.mark.skipif(is_missing("gepa"), reason="gepa is not installed")
def test_an_adapter_is_optimized_here_and_by_gepa(tmp_path: Path) -> None:
    found = result_of(Path(__file__).with_name("gepa_run.py"), tmp_path)
    assert found["most_often"] == 1  # the cache of the run
    assert list(found["best"]) == ["label", "unused"]
    assert set(found["values"]) == {0.0, 1.0}
    assert found["reasons"] in (["the category"], [])
    assert found["own_process"]
    assert found["gepa"] >= 0.5


def answered(evaluate: Any, make_reflective_dataset: Any = None) -> Answer:
    adapter = SimpleNamespace(evaluate=evaluate, make_reflective_dataset=make_reflective_dataset)
    with passed_functions({"own:adapter": adapter}):  # type: ignore[dict-item]
        program = GEPAProgram("own", "adapter").load()
    return program({"plan": "P", "answer": "A"}, {"text": "T", "label": "x"}, None)


def batch(outputs: list[Any], scores: list[Any], trajectories: list[Any] | None = None) -> SimpleNamespace:
    return SimpleNamespace(outputs=outputs, scores=scores, trajectories=trajectories)


def test_the_adapter_gets_the_row_and_the_prompts_and_its_feedback_is_the_reason() -> None:
    seen: list[Any] = []

    def evaluate(rows: list[Any], candidate: dict[str, str], capture_traces: bool = False) -> SimpleNamespace:
        seen.append((rows, candidate, capture_traces))
        return batch([{"text": "y"}], [0.25], [{"called": 2}])

    def make(candidate: dict[str, str], found: Any, names: list[str]) -> dict[str, list[dict[str, Any]]]:
        assert (found.trajectories, names) == ([{"called": 2}], ["plan", "answer"])
        other = {"Inputs": {"a": 1}, "Feedback": "no source"}
        return {"plan": [{"Generated Outputs": "q", "Feedback": "too short"}, other], "answer": [other]}

    found = answered(evaluate, make)
    assert seen == [([{"text": "T", "label": "x"}], {"plan": "P", "answer": "A"}, True)]
    assert (found.text, found.score, found.reason) == ('{"text": "y"}', 0.25, "[plan] too short; no source")
    assert found.trace == '[plan] Generated Outputs: q\n[plan] Inputs: {"a": 1}\n[answer] Inputs: {"a": 1}'


def test_a_right_answer_needs_no_reflection() -> None:
    assert answered(lambda *_, **__: batch(["y"], [1], [1])) == Answer("y", "", 1.0, "")


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (batch(["y"], [7.5]), "own:adapter scored 7.5, which is not from 0 to 1; scale its scores"),
        (batch(["y"], [float("nan")]), "own:adapter scored nan"),
        (batch(["y"], []), "did not return an EvaluationBatch with one output and one score"),
        (None, "did not return an EvaluationBatch"),
    ],
)
def test_what_is_no_batch_of_one(returned: Any, words: str) -> None:
    with pytest.raises(EvaluationError, match=words):
        answered(lambda *_, **__: returned)
