from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import saturation
from benchmarks.measuring.access_log import read_log, traffic
from benchmarks.measuring.subjects import CANDIDATES
from tests.paths import read_json


@pytest.mark.slow
def test_the_numbers_of_the_saturation_benchmark_add_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert saturation.main(["--quick", "--only", "one", "--folder", str(tmp_path)]) == 0
    outcome = read_json(tmp_path / "outcomes.jsonl")
    summary = read_json(tmp_path / "one" / "results" / "summary.json")
    seen = traffic(read_log(tmp_path / "one" / "access.jsonl"))
    assert seen is not None
    assert outcome["calls"] == seen.calls == sum(usage["requests"] for usage in summary["llm"].values())
    assert outcome["calls"] - outcome["task_calls"] == CANDIDATES
    assert outcome["duplicates"] == 0
    assert outcome["physical_s"] == pytest.approx(seen.calls * 0.2 / 32)
    assert outcome["busy"] == pytest.approx(outcome["physical_s"] / outcome["calling_s"])
    assert 0 < outcome["busy"] <= 1
    assert outcome["to_first_call_s"] + outcome["calling_s"] < outcome["wall_s"]
    # The CPU time includes Ray's processes and the evaluator, which makes the calls.
    assert outcome["shares"]["ServeReplica"][0] > 0
    assert outcome["cpu_ms_per_call"] * outcome["calls"] / 1000 < outcome["cpu_s"]
    assert outcome["val"] == summary["trajectories"][0]["best"]["val"]
    (row,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("| ours"))
    assert f"| {seen.calls:,} |" in row
