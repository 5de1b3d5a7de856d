from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from benchmarks.simulated_endpoint import SimulatedEndpoint
    from tests.commands import Gpo
    from tests.configs import WriteConfig


@pytest.mark.slow
def test_a_run_takes_no_more_than_was_planned(
    endpoint: SimulatedEndpoint, gpo: Gpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    config = write_config(tmp_path, endpoint.base_url, optimizer={"direction": {"form": "score_reflection"}})
    done = gpo("plan", config, "--output", "plan.json", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert endpoint.requests == []
    (plan,) = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))["tasks"]
    assert f"≤ {plan['llm']['task']['calls']:,}" in done.stdout

    assert gpo("run", config, "--run-dir", "results", cwd=tmp_path).code == 0
    used = json.loads((tmp_path / "results" / "summary.json").read_text(encoding="utf-8"))["llm"]
    for role in ("task", "optimizer"):
        assert 0.8 * plan["llm"][role]["calls"] <= used[role]["requests"] <= plan["llm"][role]["calls"]
        assert used[role]["completion_tokens"] <= plan["llm"][role]["completion_tokens"]
