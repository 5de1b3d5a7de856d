"""Everything goes wrong at once, and all files, outputs and Ray's memory are searched for planted secrets."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from tests.e2e.secrets import CANARY, leaks, memory_of_gcs
from tests.paths import read_json
from tests.unit.cluster.api.test_faulty_endpoint import ALL_AT_ONCE, FILED, KEY, everything_went_wrong

if TYPE_CHECKING:
    from tests.commands import Gpo
    from tests.configs import WriteConfig
    from tests.conftest import Until


@pytest.fixture
def env(folder: Path) -> dict[str, str]:
    # With as many log lines as possible.
    loud = {"OPENAI_LOG": "debug", "RAY_BACKEND_LOG_LEVEL": "debug", "RAY_SERVE_LOG_LEVEL": "DEBUG"}
    return {"OPENAI_API_KEY": KEY, "RAY_TMPDIR": str(folder / "ray"), **loud}


@pytest.fixture
def config(endpoint: SimulatedEndpoint, write_config: WriteConfig, folder: Path) -> Path:
    secret = folder / "key"
    secret.write_text(FILED, encoding="utf-8")
    optimizer = {"api_key_file": str(secret), "max_attempts": 6}
    return write_config(
        folder,
        endpoint.base_url,
        run={"seeds": [0, 1]},
        models={"optimizer": optimizer},
        optimizer={"steps": 100, "candidates": 4},  # more than the test waits for
        # A huge reply is refused, which leaves its example unscored.
        evaluation={"val_size": 10, "max_unscored": 0.5},
    )


def test_a_run_meets_every_fault_and_then_a_refused_key_and_leaks_no_key(
    endpoint: SimulatedEndpoint, gpo: Gpo, config: Path, folder: Path, env: dict[str, str], until: Until
) -> None:
    """``tests/unit/cluster/api/test_faulty_endpoint.py`` tests that such a run would complete."""
    endpoint.behaviour = ALL_AT_ONCE
    command = gpo.start("run", config, "--run-dir", "results", cwd=folder, env=env)
    until(lambda: everything_went_wrong(endpoint), "everything went wrong")
    until(lambda: _both_make_steps(folder / "results" / "steps.jsonl"), "both seeds make steps, on bad replies, too")
    state = memory_of_gcs(command)
    endpoint.behaviour = Behaviour(fail_next=10_000, error_status=401, repeats_key=True)
    half_way = len(endpoint.requests)
    finished = command.finish()
    assert finished.code == 2
    (line,) = [line for line in finished.stderr.splitlines() if line.startswith("gpo: error:")]
    assert re.search(r"models\.(task\.api_key_env|optimizer\.api_key_file)", line)
    assert not [word for word in ("HTTP 401", "set a key", "***") if word not in line], line
    # The calls in flight end, and no other call is made again and again.
    assert [record.status for record in endpoint.requests[half_way:]].count(401) <= 2 * 3 * 20
    summary = read_json(folder / "results" / "summary.json")
    assert summary["status"] == "failed"
    rows, used = summary["trajectories"], summary["llm"].values()
    assert not [row for row in rows if row["error"] and "HTTP 401" not in row["error"]]
    assert all(row["steps"] > 0 for row in rows)
    for name in ("retries", "failures", "empty", "truncated", "unmetered"):
        assert sum(counts[name] for counts in used) > 0, (name, summary["llm"])
    assert sum(row["samples"][name] for row in rows for name in ("malformed", "failed")) > 0
    evaluated = gpo("evaluate", config, "--prompt", "Never asked before.", cwd=folder, env=env)
    assert evaluated.code != 0

    # The keys are nowhere, though other values are.
    assert b"task-model" in state
    assert CANARY not in state
    assert (folder / "ray").exists()
    assert b"***" in b"".join(path.read_bytes() for path in folder.glob("completions.sqlite*"))
    assert leaks(folder) == []
    assert "canary" not in finished.stdout + finished.stderr + evaluated.stdout + evaluated.stderr


def _both_make_steps(path: Path) -> bool:
    written = path.read_bytes().split(b"\n")[:-1] if path.exists() else []  # the last line may be incomplete
    rows = [json.loads(line) for line in written]
    return {row["seed"] for row in rows} == {0, 1} and any(row["malformed"] + row["failed"] for row in rows)


def test_the_search_finds_a_leak(folder: Path) -> None:
    (folder / "key").write_text(KEY, encoding="utf-8")
    assert leaks(folder) == []
    (folder / "ray").mkdir()
    (folder / "ray" / "worker.err").write_text(f"Bearer {KEY}", encoding="utf-8")
    os.mkfifo(folder / "ray" / "pipe")
    assert leaks(folder) == [str(folder / "ray" / "worker.err")]
