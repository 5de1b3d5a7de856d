from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.config.loading import validate
from cluster.config.run import AdaptiveScoringConfig, RunConfig
from cluster.evaluating.plan import Expense, cost_usd, plan_document, plan_table, planned
from cluster.session.models import build_tasks
from gpo.errors import ConfigError
from tests.paths import TRIAGE

MODEL = {"base_url": "http://127.0.0.1:9/v1", "model": "a-model", "sampling": {"max_tokens": 10}}


def config(optimizer: dict[str, Any], task: dict[str, Any] | None = None, **sections: Any) -> RunConfig:
    triage = {
        "name": "triage",
        "data": {split: str(TRIAGE / f"{split}.jsonl") for split in ("train", "val", "test")},
        "fields": {"input": "text", "target": "label"},
        "answer": {"kind": "exact"},
    }
    return validate(
        {
            "models": {"task": MODEL, "optimizer": MODEL},
            "tasks": [{**triage, **(task or {})}],
            "optimizer": {"steps": 3, "candidates": 4, **optimizer},
            "evaluation": {"val_size": 5, "test_size": 7, "scoring": {"block": 5}},
            **sections,
        },
        base_dir=Path("/"),
    )


def calls(made: RunConfig) -> dict[str, int]:
    (plan,) = planned(made, build_tasks(made))
    return {role: expense.calls for role, expense in plan.by_role.items()}


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (config({}), {"task": 5 * 13 + 7 * 2, "optimizer": 12}),
        (config({"steps": 0}), {"task": 5 + 7, "optimizer": 0}),
        # Each candidate of the first two steps of three rewrites both prompts.
        (
            config({}, {"program": "json:dumps", "prompt": None, "prompts": {"plan": "Plan.", "answer": "Answer."}}),
            {"task": 5 * 13 + 7 * 2, "optimizer": 20},
        ),
        # The optimizer model writes four first prompts from the goal.
        (config({}, {"prompt": None, "goal": "Sort."}), {"task": 5 * 17 + 7 * 2, "optimizer": 16}),
        # Two given prompts answer val as well, and the optimizer model is not asked for them.
        (config({}, {"prompt": ["Sort.", "Label.", "Name."]}), {"task": 5 * 15 + 7 * 2, "optimizer": 12}),
        (config({"steps": 0}, {"prompt": ["Sort.", "Label."]}), {"task": 5 * 2 + 7 * 2, "optimizer": 0}),
        (config({}, run={"seeds": [0, 1]}), {"task": 2 * (5 * 13 + 7 * 2), "optimizer": 24}),
        (config({}, {"answer": {"kind": "exact", "rounds": 2}}), {"task": 2 * (5 * 13 + 7 * 2), "optimizer": 12}),
        (config({"direction": {"form": "score_reflection"}}), {"task": 5 * 13 + 7 * 2 + 3 * 8, "optimizer": 15}),
        (config({"direction": {"form": "feedback"}}), {"task": 5 * 13 + 7 * 2 + 3 * 8, "optimizer": 12}),
        (config({"direction": {"trajectory": {"kind": "summary"}}}), {"task": 5 * 13 + 7 * 2, "optimizer": 14}),
        (config({"refinement": {"enforce": True}}), {"task": 5 * 13 + 7 * 2, "optimizer": 48}),
        (config({"steps": None, "epochs": 2}), {"task": 5 * 25 + 7 * 2, "optimizer": 24}),
        (
            config({}, {"answer": {"kind": "judge", "rubric": "Right?"}}),
            {"task": 5 * 13 + 7 * 2, "optimizer": 12, "judge": 5 * 13 + 7 * 2},
        ),
    ],
)
def test_calls_follow_the_formula(made: RunConfig, expected: dict[str, int]) -> None:
    assert calls(made) == expected


def test_costs_follow_the_prices() -> None:
    priced = {**MODEL, "price": {"prompt": 2.0, "completion": 10.0}}
    made = config({}, models={"task": priced, "optimizer": {**priced, "sampling": {}}})
    assert cost_usd(made, "task", Expense(3, 1_000_000, 100_000)) == pytest.approx(3.0)
    (plan,) = planned(made, build_tasks(made))
    assert plan.by_role["task"].completion_tokens == 10 * plan.by_role["task"].calls
    assert plan.by_role["optimizer"].completion_tokens is None
    assert plan_document(made, [plan])["tasks"][0]["llm"]["optimizer"]["cost_usd"] is None
    free = config({}, models={"task": MODEL, "optimizer": {"kind": "embedded"}})
    assert cost_usd(free, "optimizer", Expense(3, 1_000_000, None)) == 0.0


def test_tokens_are_estimated_from_the_texts_that_are_sent() -> None:
    short, long = (planned(made, build_tasks(made))[0].by_role for made in (
        config({}, {"prompt": "Sort."}), config({}, {"prompt": "Sort. " * 100})
    ))  # fmt: skip
    # 99 times six characters more, at four a token, in each call.
    assert long["task"].prompt_tokens - short["task"].prompt_tokens == pytest.approx(99 * 6 / 4 * 79, abs=99)
    assert long["optimizer"].prompt_tokens > short["optimizer"].prompt_tokens


def test_the_failures_in_a_meta_prompt_are_estimated() -> None:
    plain, one, three = (
        planned(made, build_tasks(made))[0].by_role["optimizer"].prompt_tokens
        for made in (config({"direction": direction}) for direction in (
            {}, {"form": "feedback", "failures": 1}, {"form": "feedback"}
        ))
    )  # fmt: skip
    assert 12 * 150 < one - plain < 12 * 300
    assert three - plain > 2 * (one - plain)


def test_racing_keeps_the_bounds_and_is_mentioned() -> None:
    raced, full = (config({}, evaluation={"val_size": 5, "scoring": kind}) for kind in ("racing", "full"))
    assert calls(raced) == calls(full)
    captions = [plan_table(made, planned(made, build_tasks(made))).caption for made in (raced, full)]
    assert "evaluation.scoring is racing" in str(captions[0])
    assert captions[1] is None


def test_adaptive_scoring_has_a_lower_bound() -> None:
    made = AdaptiveScoringConfig(block=5, most=12)
    # Eight candidates answer 5 examples, four 5 more, and two the last 2; two prompts are confirmed on the rest of val.
    assert made.most_answers(100, num_steps=3, num_candidates=8) == 12 + 3 * (40 + 20 + 4 + 5) + 2 * 95
    grown = AdaptiveScoringConfig(block=5, most=40).most_answers(100, num_steps=1, num_candidates=8)
    assert grown == 40 + (8 * 5 + 4 * 5 + 2 * 10 + 1 * 20 + 5) + 2 * 95
    # A small val is answered as a whole from the start.
    assert made.most_answers(4, num_steps=1, num_candidates=2) == 4 + 2 * 4


def test_a_stopping_rule_keeps_the_bounds_and_is_mentioned() -> None:
    stopping = config({}, stop={"patience": 2})
    assert calls(stopping) == calls(config({}))
    assert "stop is set" in str(plan_table(stopping, planned(stopping, build_tasks(stopping))).caption)


def test_a_target_that_no_score_on_so_few_examples_can_show_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"stop.target: 0.9 cannot be shown with 5 val examples.* at least 0\.649"):
        build_tasks(config({}, stop={"target": 0.9}))
    build_tasks(config({}, stop={"target": 0.64}))
