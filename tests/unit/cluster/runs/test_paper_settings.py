"""A search with the paper's settings makes the calls that the algorithm needs, and no others."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from tests.commands import searched
from tests.paths import ROOT

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


def test_a_search_makes_as_many_calls_as_the_formula_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write_benchmark(tmp_path / "bbh" / "navigate")
    with SimulatedEndpoint(Behaviour(models=("gpt-4o", "gpt-4o-mini"), malformed_rate=0.05)) as endpoint:
        monkeypatch.setenv("OPENAI_BASE_URL", endpoint.base_url)
        settings = ("tasks.0.data.name=navigate", f"tasks.0.data.root={tmp_path}", "run.seeds=[0]")
        cache = f"cache.path={tmp_path / 'completions.sqlite'}"
        ((_, found),) = searched(ROOT / "configs" / "paper" / "bbh.yaml", [*settings, cache]).items()
        calls = endpoint.requests
    steps = found.trajectory.steps
    assert len(steps) == STEPS
    assert [step.step_size for step in (steps[0], steps[-1])] == [50, 10]

    # Optimizer model: S·C, and every reply of a step is a candidate or counted.
    assert sum(call.model == "gpt-4o" for call in calls) == STEPS * CANDIDATES
    for step in steps:
        counted = step.samples.num_malformed + step.samples.num_repeated + step.samples.num_failed
        assert len(step.candidates) + counted + step.samples.num_rejected == CANDIDATES

    # Task model: R·(V·(1 + F) + T), none of them twice.
    fresh = sum(len(step.candidates) for step in steps)
    task_calls = Counter(call.content for call in calls if call.model == "gpt-4o-mini")
    assert sum(task_calls.values()) == ROUNDS * (NUM_VAL * (1 + fresh) + NUM_TEST)
    assert max(task_calls.values()) == 1
    assert fresh < STEPS * CANDIDATES  # some replies held no prompt, and were not scored
