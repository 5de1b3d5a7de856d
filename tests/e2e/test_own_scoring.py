"""Functions of the user's own, and a language model as judge, in the processes of a cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.simulated_endpoint import SimulatedEndpoint

if TYPE_CHECKING:
    from tests.commands import Gpo
    from tests.configs import WriteConfig

METRIC = """
def half_for_a_word(answer, targets, input):
    return 1.0 if answer in targets else 0.5 if answer else 0.0
"""


def test_each_task_is_judged_in_its_own_way(
    endpoint: SimulatedEndpoint, gpo: Gpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    beside = tmp_path / "configs"
    beside.mkdir()
    (beside / "serve.py").write_text(METRIC, encoding="utf-8")  # a name that the program has, too
    config = write_config(
        beside,
        endpoint.base_url,
        tasks=[
            {},
            {"name": "custom", "answer": {"kind": "custom", "metric": "serve:half_for_a_word"}},
            {"name": "judged", "answer": {"kind": "judge", "rubric": "The label is right.", "scale": 4}},
        ],
        run={"seeds": [0]},
        optimizer={"steps": 1},
    )
    done = gpo("run", config, "--run-dir", "results", cwd=tmp_path)
    assert done.code == 0, done.stderr

    folder = tmp_path / "results"
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    exact, custom, judged = (row["initial"]["val"] for row in summary["trajectories"])
    assert custom == (1 + exact) / 2  # the simulated model always says a word
    assert judged == exact
    tried = [json.loads(line) for line in (folder / "steps.jsonl").read_text(encoding="utf-8").splitlines()]
    (of_judged,) = (line for line in tried if line["task"] == "judged")
    ends = len({row["prompt"] for row in (summary["trajectories"][2]["initial"], summary["trajectories"][2]["best"])})
    judge = summary["llm"]["judge"]  # an answer that was judged before, to the same question, is not judged again
    assert judge["requests"] + judge["cached"] == 20 * (1 + len(of_judged["candidates"])) + 30 * ends
    assert judge["requests"] >= 20
