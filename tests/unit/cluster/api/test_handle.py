"""Handles of runs that are known by their folder; ``gpo.optimize`` makes the folders, without Ray."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import cluster
import gpo
from benchmarks.simulated.service import Behaviour
from benchmarks.simulated_endpoint import SimulatedEndpoint
from cluster.results.status import SILENT_AFTER_S
from tests.configs import TRIAGE, small_config

if TYPE_CHECKING:
    from tests.commands import RunGpo
    from tests.conftest import Until


def optimized(endpoint: SimulatedEndpoint, run_dir: Path, **changes: Any) -> gpo.Run:
    return gpo.optimize(
        "Classify the support ticket into one of: billing, technical, shipping, account.",
        **{split: TRIAGE / f"{split}.jsonl" for split in ("train", "val", "test")},
        metric="exact",
        position="question_begin",
        task_model=small_config(endpoint.base_url)["models"]["task"],
        optimizer_model=small_config(endpoint.base_url)["models"]["optimizer"],
        evaluation={"val_size": 20, "test_size": 20},
        cache={"kind": "none"},
        run_dir=run_dir,
        progress=False,
        **{"steps": 1, **changes},
    )


def rewrite_summary(run: Path, age_s: float = 0.0, **changes: Any) -> None:
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    (run / "summary.json").write_text(json.dumps({**summary, **changes}), encoding="utf-8")
    for path in run.rglob("*"):
        os.utime(path, (time.time() - age_s,) * 2)


def test_a_run_that_has_ended(endpoint: SimulatedEndpoint, tmp_path: Path, gpo_command: RunGpo) -> None:
    run = optimized(endpoint, tmp_path / "run")
    handle = cluster.attach(tmp_path / "run")
    shown = json.loads(gpo_command("status", "run", "--json", cwd=tmp_path).stdout)
    assert {**handle.status(), "age_s": 0} == {**shown, "age_s": 0}
    assert handle.wait()
    assert handle.result().best == run.best
    with pytest.raises(gpo.ConfigError, match=r"^run_dir: the run in .* has ended"):
        handle.stop()

    rewrite_summary(tmp_path / "run", status="running")
    assert not handle.wait(timeout=0.1)
    rewrite_summary(tmp_path / "run", age_s=2 * SILENT_AFTER_S)
    with pytest.raises(gpo.GPOError, match=r"no sign of life: nothing has changed for 24\d s"):
        handle.result()
    rewrite_summary(tmp_path / "run", status="failed")
    assert handle.wait()
    with pytest.raises(gpo.GPOError, match="failed: see the output of its process"):
        handle.result()


def test_a_run_that_works_is_watched_and_stopped(endpoint: SimulatedEndpoint, tmp_path: Path, until: Until) -> None:
    endpoint.behaviour = Behaviour(latency_s=0.1)
    ended: list[gpo.Run] = []
    thread = threading.Thread(target=lambda: ended.append(optimized(endpoint, tmp_path / "run", steps=50)))
    thread.start()
    until((tmp_path / "run/summary.json").exists, "the run has begun")
    handle = cluster.attach(tmp_path / "run")
    until(lambda: handle.status()["steps"] >= 1, "a step is done")
    assert handle.status()["state"] == "running"
    handle.stop()
    run = handle.result()
    thread.join()
    assert run.status == "interrupted"
    assert run.best == ended[0].best


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    for folder, problem in ((tmp_path, "holds no run"), ("", "is empty"), ("s3://a:b@c/d", "holds a user name")):
        with pytest.raises(gpo.ConfigError, match=f"^run_dir: .*{problem}"):
            cluster.attach(folder)
