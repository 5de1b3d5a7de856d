"""``cluster.launch`` in a program that starts Ray on this machine, and ``cluster.attach`` in another process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import cluster
from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
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
import json, sys
import cluster, gpo
from metrics_of_mine import is_right

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


long = ["optimizer.steps=1000", "models.task.max_concurrency=2"]
first = cluster.launch("config.yaml", address="local", overrides=long, run_dir="runs/first")
second = launched()
print(second.result().status, flush=True)
again = launched()
print(again.result().status, again.result().best.num_test, flush=True)
# The first run ends with the program.
"""


def test_runs_are_launched_stopped_from_another_process_and_continued(
    endpoint: SimulatedEndpoint, gpo: Gpo, until: Until, folder: Path
) -> None:
    write_small_config(folder, endpoint.base_url)
    (folder / "metrics_of_mine.py").write_text(_METRICS, encoding="utf-8")
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
    assert cluster.attach(folder / "runs/first").status()["state"] == "interrupted"
    assert not program.survivors()
    calls = [json.dumps([call.model, call.content]) for call in endpoint.requests if call.status == 200 and call.model]
    assert len(calls) - len(set(calls)) <= 3 * 4 * 6  # in flight at the ends, and prompts that were partly scored
