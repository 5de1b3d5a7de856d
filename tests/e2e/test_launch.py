"""``cluster.launch`` in a program that starts Ray on this machine, and ``cluster.attach`` in another process.

Another process without Ray then continues the run that ended with the program.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import cluster
from actors.folder import Folder
from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from cluster.api.optimize import run_in_this_process
from cluster.api.progress import SilentView
from cluster.config.loading import load_config
from cluster.runs.run_folder import RunFolder
from tests.configs import TRIAGE, triage_task, write_small_config
from tests.paths import ROOT

if TYPE_CHECKING:
    from tests.commands import Gpo
    from tests.conftest import Until

_METRICS = """
def is_right(answer, example):
    return float(answer.strip() == example.target)
"""
_PROGRAM = """
import json, sys, time
import cluster, gpo
from launched_metrics import is_right

base_url, prompt, folder = sys.argv[1:]
rows = {split: [json.loads(line) for line in open(f"{folder}/{split}.jsonl")] for split in ("train", "val", "test")}


def launched():
    return cluster.launch(
        prompt=prompt,
        **{split: some[:30] for split, some in rows.items()},
        fields={"input": "text", "target": "label"},
        metric=is_right,
        position="question_begin",
        task_model=gpo.Endpoint(base_url, model="task-model", check=False, max_concurrency=4),
        optimizer_model=gpo.Endpoint(base_url, model="opt-model", check=False),
        steps=6,
        cache={"kind": "none"},
        run_dir="runs/second",
    )


first = cluster.launch("config.yaml", address="local", run_dir="runs/first")
second = launched()
print(second.result().status, flush=True)
again = launched()
print(again.result().status, again.result().best.num_test, flush=True)
while first.status()["steps"] == 0:
    time.sleep(0.1)
# The first run ends with the program.
"""


def test_runs_are_launched_stopped_from_another_process_and_continued(
    endpoint: SimulatedEndpoint, gpo: Gpo, until: Until, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_small_config(
        folder,
        endpoint.base_url,
        models={"task": {"max_concurrency": 2}},
        optimizer={"steps": 1000},
        tasks=[{"answer": {"kind": "custom", "metric": "launched_metrics:is_right"}}],
    )
    (folder / "launched_metrics.py").write_text(_METRICS, encoding="utf-8")
    (folder / "program.py").write_text(_PROGRAM, encoding="utf-8")
    arguments = [endpoint.base_url, triage_task()["prompt"], str(TRIAGE)]
    endpoint.behaviour = Behaviour(latency_s=0.2)

    program = gpo.start(*arguments, cwd=folder, program=("program.py",), env={"PYTHONPATH": f"{folder}:{ROOT}"})
    run = folder / "runs/second"
    until(lambda: (run / "steps.jsonl").exists() and cluster.attach(run).status()["steps"] >= 1, "a step is done")
    handle = cluster.attach(run)
    assert handle.status()["state"] == "running"
    handle.stop()
    endpoint.behaviour = Behaviour(latency_s=0.05)
    ended = program.finish()
    assert ended.code == 0, ended.stderr
    assert ended.stdout.split() == ["interrupted", "completed", "30"]
    assert handle.result().best.test is not None
    assert "the program ends, so the run in" in ended.stderr
    assert not program.survivors()

    first = cluster.attach(folder / "runs/first")
    stopped = first.status()
    assert stopped["state"] == "interrupted"
    monkeypatch.syspath_prepend(folder)
    budget = f"budget.calls={stopped['spent']['calls'] + 200}"
    opened = load_config(config, [budget]), RunFolder(Folder.at(first.run_dir))
    asyncio.run(run_in_this_process(*opened, "first", SilentView()))
    continued = first.status()
    assert continued["state"] == "budget_exhausted"
    assert continued["steps"] > stopped["steps"] > 0
    calls = [json.dumps([call.model, call.content]) for call in endpoint.requests if call.status == 200 and call.model]
    assert len(calls) - len(set(calls)) <= 3 * 4 * 6  # in flight at the ends, and prompts that were partly scored
