"""A run that begins with the best prompts of an earlier one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from actors.folder import Folder
from actors.search import SearchKey
from cluster.config import load_config
from cluster.runs.run_folder import RunFolder
from cluster.session.models import build_tasks
from gpo.checkpoint import Checkpoint
from gpo.testing.samples import candidate, trajectory
from tests.paths import read_json

if TYPE_CHECKING:
    from benchmarks.simulated_endpoint import SimulatedEndpoint
    from tests.commands import Gpo
    from tests.configs import WriteConfig

INITIAL = "Sort the ticket."
FOUND = ["Sort the ticket: billing, technical, shipping or account.", "Which desk?"]


def save_earlier_run(folder: Path, config_path: Path) -> None:
    config = load_config(config_path)
    run = RunFolder(Folder.at(str(folder)))
    run.open(config, build_tasks(config), run_id="earlier", resume=False)
    found = [candidate(text, value) for text, value in zip(FOUND, (0.75, 0.6), strict=True)]
    run.checkpoints.save(SearchKey("triage", 0), Checkpoint(trajectory(candidate(INITIAL, 0.5), found), {}))


def test_a_run_begins_with_the_best_prompts_of_an_earlier_one(
    endpoint: SimulatedEndpoint, gpo: Gpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    sizes = {"run": {"seeds": [0]}, "optimizer": {"steps": 1, "candidates": 2}}
    save_earlier_run(tmp_path / "earlier", write_config(tmp_path, endpoint.base_url, **sizes))
    config = write_config(tmp_path, endpoint.base_url, tasks=[{"prompt": {"run": "earlier"}}], **sizes)
    said = (
        "2 prompts of task triage of run earlier first; val there, in %: 75.0, 60.0 (same task model, data and metric)"
    )

    done = gpo("plan", config, cwd=tmp_path)
    assert said in done.stderr

    done = gpo("run", config, "--run-dir", "results", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert said in done.stderr
    first, second = map(json.loads, (tmp_path / "results" / "steps.jsonl").read_text().splitlines())
    assert [one["prompt"] for one in first["candidates"]] == FOUND
    assert (first["first_prompts"], first["step_size"], first["llm"]["optimizer"]["requests"]) == (True, None, 0)
    assert (second["first_prompts"], second["step_size"], len(second["candidates"])) == (False, 50, 2)
    (row,) = read_json(tmp_path / "results" / "summary.json")["trajectories"]
    assert (row["steps"], row["initial"]["prompt"]) == (2, INITIAL)

    # Complete, and without the earlier run nothing has to be read.
    shutil.rmtree(tmp_path / "earlier")
    done = gpo("run", config, "--run-dir", "results", "--resume", cwd=tmp_path)
    assert done.code == 0, done.stderr
