from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.paths import read_json

if TYPE_CHECKING:
    from benchmarks.simulated_endpoint import SimulatedEndpoint
    from tests.commands import Gpo
    from tests.configs import WriteConfig


@pytest.mark.slow
def test_a_run_makes_no_more_calls_than_planned(
    endpoint: SimulatedEndpoint, gpo: Gpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    optimizer = {"direction": {"form": "score_reflection"}}
    config = write_config(tmp_path, endpoint.base_url, optimizer=optimizer, evaluation={"scoring": {"kind": "full"}})
    done = gpo("plan", config, "--output", "plan.json", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert endpoint.requests == []
    (plan,) = read_json(tmp_path / "plan.json")["tasks"]
    assert f"≤ {plan['llm']['task']['calls']:,}" in done.stdout

    assert gpo("run", config, "--run-dir", "results", cwd=tmp_path).code == 0
    used = read_json(tmp_path / "results" / "summary.json")["llm"]
    for role in ("task", "optimizer"):
        assert 0.8 * plan["llm"][role]["calls"] <= used[role]["requests"] <= plan["llm"][role]["calls"]
        assert used[role]["completion_tokens"] <= plan["llm"][role]["completion_tokens"]
