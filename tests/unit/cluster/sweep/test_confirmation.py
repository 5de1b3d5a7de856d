from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.sweep.config import SweepConfig, load_sweep
from cluster.sweep.confirmation import confirmation_key, paired_difference
from tests.paths import TRIAGE
from tests.unit.cluster.sweep.test_study import BY, INITIAL, sweep_file


def test_a_clear_difference_is_significant() -> None:
    found = paired_difference([0.6, 0.7, 0.65, 0.8, 0.75, 0.7], [0.5, 0.6, 0.5, 0.7, 0.7, 0.6], alpha=0.05)
    assert found.mean == pytest.approx(0.1)
    assert found.low < 0.1 < found.high
    assert found.p == pytest.approx(2 / 2**6)  # exact: no other signs are as extreme
    assert found.is_significant
    assert "the best trial is better than the paper's setting (+10.0 points" in found.statement(
        "the best trial", "the paper's setting"
    )


def test_the_statement_names_the_better_side() -> None:
    found = paired_difference([0.5] * 8, [0.6, 0.61, 0.62, 0.63, 0.64, 0.65, 0.66, 0.67], alpha=0.05)
    assert found.is_significant
    assert "the paper is better than the winner" in found.statement("the winner", "the paper")


def test_differences_in_both_directions_are_not_significant() -> None:
    found = paired_difference([0.6, 0.5, 0.7, 0.4, 0.6, 0.5, 0.6], [0.5, 0.6, 0.6, 0.5, 0.6, 0.5, 0.6], alpha=0.05)
    assert not found.is_significant
    assert found.low < 0 < found.high
    assert "no significant difference" in found.statement("a", "b")


def test_the_statement_says_when_pairs_are_too_few() -> None:
    found = paired_difference([0.9, 0.9, 0.9], [0.1, 0.1, 0.2], alpha=0.05)
    assert found.p == pytest.approx(0.25)
    assert "So few pairs cannot be significant: p is at least 0.25" in found.statement("a", "b")
    single = paired_difference([0.9], [0.1], alpha=0.05)
    assert (single.p, single.low, single.high) == (1.0, single.mean, single.mean)


def test_equal_scores_have_no_difference() -> None:
    found = paired_difference([0.5, 0.6], [0.5, 0.6], alpha=0.05)
    assert (found.mean, found.p, found.is_significant) == (0.0, 1.0, False)


def test_the_confirmation_key_changes_with_setting_and_tasks(tmp_path: Path) -> None:
    def held_out(**changes: Any) -> SweepConfig:
        data = {split: str(TRIAGE / f"{split}.jsonl") for split in ("train", "val", "test")}
        task = {"name": "desks", "data": data, "fields": {"input": "text", "target": "label"}}
        return load_sweep(sweep_file(tmp_path, holdout={"tasks": [task], "seeds": [0, 1], **changes}), ())

    setting = {INITIAL: 7, BY: "recency"}
    keys = {
        confirmation_key(config, params)
        for config, params in (
            (held_out(), setting),
            (held_out(), {**setting, INITIAL: 8}),
            (held_out(alpha=0.1), setting),
            (held_out(seeds=[0]), setting),
        )
    }
    assert len(keys) == 4
    assert confirmation_key(held_out(), dict(reversed(setting.items()))) in keys
