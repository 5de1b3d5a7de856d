from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.simulated_endpoint import SimulatedEndpoint
from tests.paths import read_json, read_json_lines

if TYPE_CHECKING:
    from tests.commands import Gpo
    from tests.configs import WriteConfig

SEEDS, VAL, TEST = (0, 1), 20, 30


@pytest.mark.slow
def test_a_race_makes_fewer_calls_and_records_dropped_candidates(
    endpoint: SimulatedEndpoint, gpo: Gpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    config = write_config(
        tmp_path, endpoint.base_url, run={"seeds": list(SEEDS)}, optimizer={"steps": 3, "candidates": 6},
        evaluation={"scoring": {"kind": "racing", "block": 5, "alpha": 0.2}}, cache={"kind": "none"}, preset="paper",
    )  # fmt: skip
    done = gpo("run", config, "--run-dir", "raced", cwd=tmp_path)
    assert done.code == 0, done.stderr
    calls = sum(call.model == "task-model" and call.status == 200 for call in endpoint.requests)
    summary = read_json(tmp_path / "raced" / "summary.json")
    assert summary["llm"]["task"]["requests"] == calls
    rows = summary["trajectories"]
    steps = read_json_lines(tmp_path / "raced" / "steps.jsonl")
    candidates = [candidate for step in steps for candidate in step["candidates"]]
    left_out = sum(candidate["left_out"] for candidate in candidates)
    ends = sum(len({row["initial"]["prompt"], row["best"]["prompt"]}) for row in rows)
    assert calls == VAL * (len(SEEDS) + len(candidates)) - left_out + TEST * ends
    assert left_out > 0
    for step in steps:
        by_prompt = {candidate["prompt"]: candidate for candidate in step["candidates"]}
        assert any(not candidate["dropped"] for candidate in step["candidates"])
        assert not by_prompt[step["successor"]]["dropped"]
        assert all(candidate["dropped"] == (candidate["left_out"] > 0) for candidate in step["candidates"])
    assert sum(row["samples"]["dropped"] for row in rows) == sum(candidate["dropped"] for candidate in candidates)
