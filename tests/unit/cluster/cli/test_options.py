from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from actors.folder import Folder
from benchmarks.simulated_endpoint import SimulatedEndpoint
from cluster.cli.options import is_success, with_deadline
from cluster.config import load_config
from cluster.config.run import RunConfig
from cluster.runs.run_folder import RunFolder
from cluster.session.models import build_tasks
from tests.configs import CHECKED, submitted_config

if TYPE_CHECKING:
    from tests.commands import RunGpo
    from tests.configs import WriteConfig


@pytest.mark.parametrize(
    ("own", "deadline", "expected"),
    [(None, None, None), (None, 60.0, 60.0), (90.0, 60.0, 60.0), (30.0, 60.0, 30.0), (30.0, None, 30.0)],
)
def test_the_smaller_of_deadline_and_budget_counts(
    own: float | None, deadline: float | None, expected: float | None
) -> None:
    config = RunConfig.model_validate(submitted_config() | {"budget": {"wall_s": own, "calls": 9}})
    bounded = with_deadline(config, deadline)
    assert (bounded.budget.wall_s, bounded.budget.calls) == (expected, 9)
    assert bounded.model_copy(update={"budget": config.budget}) == config


def test_a_budget_that_ended_the_work_is_a_success_only_if_asked() -> None:
    assert is_success("completed", budget_ok=False)
    assert not is_success("budget_exhausted", budget_ok=False)
    assert is_success("budget_exhausted", budget_ok=True)
    for status in ("interrupted", "failed"):
        assert not is_success(status, budget_ok=True)


def test_a_sweep_without_time_left_starts_nothing(
    gpo: RunGpo, endpoint: SimulatedEndpoint, write_config: WriteConfig, tmp_path: Path
) -> None:
    sweep = {"trials": 2, "space": {"optimizer.candidates": {"low": 2, "high": 4}}}
    path = write_config(tmp_path, endpoint.base_url, models=CHECKED, sweep=sweep)
    (tmp_path / "tuned").mkdir()
    known = {"sweep_id": "first", "started_at": "2026-11-30T12:00:00+00:00", "wall_s": 100.0}
    (tmp_path / "tuned/sweep.json").write_text(json.dumps(known))
    ended = gpo("sweep", path, "--run-dir", tmp_path / "tuned", "--resume", "--deadline", "100", cwd=tmp_path)
    assert ended.code == 1
    assert "Stopped by budget.wall_s: 100 s are over" in ended.stderr
    assert endpoint.requests == []
    assert json.loads((tmp_path / "tuned/sweep.json").read_text())["wall_s"] > 100.0


def test_a_command_begins_before_its_run(
    gpo: RunGpo, endpoint: SimulatedEndpoint, write_config: WriteConfig, tmp_path: Path
) -> None:
    """The time of earlier attempts is over: neither a model nor Ray is needed to say so."""
    path = write_config(tmp_path, endpoint.base_url, models=CHECKED)
    config, folder = load_config(path), RunFolder(Folder.at(str(tmp_path / "run")))
    record = folder.open(config, build_tasks(config), run_id="first", resume=False)
    record.status, record.wall_s = "interrupted", 100.0
    folder.save(record)
    resumed = ("run", path, "--run-dir", tmp_path / "run", "--resume", "--deadline", "100")
    ended = gpo(*resumed, cwd=tmp_path)
    assert (ended.code, gpo(*resumed, "--budget-ok", cwd=tmp_path).code) == (1, 0)
    assert "Stopped by budget.wall_s: 100 s are over; finished work is saved." in ended.stderr
    assert "--resume" in ended.stderr
    assert endpoint.requests == []
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["wall_s"] > 100.0
