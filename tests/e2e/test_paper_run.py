"""A run with the paper's settings makes the calls that the algorithm needs, and no others."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from tests.paths import ROOT, read_json, read_json_lines

if TYPE_CHECKING:
    from tests.commands import Gpo

CONFIG = ROOT / "configs" / "paper" / "bbh.yaml"
NUM_TRAIN, NUM_VAL, NUM_TEST = 24, 5, 9
STEPS, CANDIDATES, ROUNDS = 3 * 3, 8, 2


def _write_benchmark(folder: Path) -> None:
    folder.mkdir(parents=True)
    first = 0
    for name, count in (("train", NUM_TRAIN), ("eval", NUM_VAL), ("test", NUM_TEST)):
        rows = [
            {"input": f"Take {number} steps and turn around. Are you back?\nOptions:\n- Yes\n- No", "target": "No"}
            for number in range(first, first + count)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        first += count


def test_a_run_makes_as_many_calls_as_the_formula_says(gpo: Gpo, tmp_path: Path) -> None:
    _write_benchmark(tmp_path / "bbh" / "navigate")
    with SimulatedEndpoint(Behaviour(models=("gpt-4o", "gpt-4o-mini"), malformed_rate=0.05)) as endpoint:
        done = gpo(
            "run", CONFIG, "--run-dir", "results", "--set", "tasks.0.data.name=navigate", "--set", "run.seeds=[0]",
            "--set", f"tasks.0.data.root={tmp_path}", "--set", f"cache.path={tmp_path / 'completions.sqlite'}",
            cwd=tmp_path, env={"OPENAI_BASE_URL": endpoint.base_url},
        )  # fmt: skip
        assert done.code == 0, done.stderr
        calls = endpoint.requests

    folder = tmp_path / "results"
    steps = read_json_lines(folder / "steps.jsonl")
    (row,) = read_json(folder / "summary.json")["trajectories"]
    assert [step["step_size"] for step in (steps[0], steps[-1])] == [50, 10]
    assert len(steps) == STEPS

    # Optimizer model: S·C and the check's call, and every reply of a step is a candidate or counted.
    assert sum(call.model == "gpt-4o" for call in calls) == STEPS * CANDIDATES + 1
    assert all(
        len(step["candidates"]) + step["malformed"] + step["repeated"] + step["failed"] + step["rejected"] == CANDIDATES
        for step in steps
    )

    # Task model: R·(V·(1 + F) + T·E), none of them twice.
    fresh = sum(len(step["candidates"]) for step in steps)
    ends = len({row["initial"]["prompt"], row["best"]["prompt"]})
    task_calls = Counter(call.content for call in calls if call.model == "gpt-4o-mini")
    assert sum(task_calls.values()) == ROUNDS * (NUM_VAL * (1 + fresh) + NUM_TEST * ends)
    assert max(task_calls.values()) == 1
    assert fresh < STEPS * CANDIDATES  # some replies held no prompt, and were not scored
