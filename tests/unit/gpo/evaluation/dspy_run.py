"""Optimizes a DSPy program in this process, and loads the result in DSPy; prints what it found as JSON.

``python dspy_run.py FOLDER PACKAGES``; PACKAGES is a folder with DSPy, which is searched last.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path

PIPELINE = """
import dspy

class Pipeline(dspy.Module):
    def __init__(self):
        super().__init__()
        self.draft = dspy.Predict(dspy.Signature("text -> label", "Classify the support ticket."))
        self.check = dspy.Predict(dspy.Signature("text, draft -> label", "Correct the category of the ticket."))

    def forward(self, text):
        draft = self.draft(text=text).label
        return dspy.Prediction(draft=draft, label=self.check(text=text, draft=draft).label)

program = Pipeline()
"""


def main(folder: Path) -> None:
    import gpo
    from benchmarks.simulated_endpoint import SimulatedEndpoint
    from tests.commands import gpo_in_this_process
    from tests.configs import triage_task, write_small_config

    (folder / "pipeline.py").write_text(PIPELINE, encoding="utf-8")
    with SimulatedEndpoint() as endpoint:
        task = {"position": "program", "prompt": None, "program": {"dspy": "pipeline:program"}}
        config = write_small_config(folder, endpoint.base_url, tasks=[task])
        evaluated = gpo_in_this_process("evaluate", config, cwd=folder)
        num_evaluated = len(endpoint.requests)
        os.chdir(folder)
        run = gpo.optimize(
            **triage_task()["data"],
            fields={"target": "label"},
            program={"dspy": "pipeline:program"},
            metric={"kind": "exact"},
            task_model=gpo.Endpoint(endpoint.base_url, model="task-model"),
            optimizer_model=gpo.Endpoint(endpoint.base_url, model="opt-model"),
            steps=1,
            run_dir=folder / "run",
            progress=False,
            evaluation={"val_size": 8, "test_size": 4},
            cache={"path": str(folder / "others.sqlite")},
        )
        asked = Counter(one.content for one in endpoint.requests[num_evaluated:] if one.model == "task-model")
    exported = gpo_in_this_process("export", folder / "run", "--format", "dspy", cwd=folder)
    (folder / "best.json").write_text(exported.stdout, encoding="utf-8")
    sys.path.insert(0, str(folder))
    import pipeline  # type: ignore[import-not-found]

    from gpo.evaluation.dspy_program import DSPyProgram

    def loaded(path: Path) -> dict[str, str]:
        program = pipeline.Pipeline()
        program.load(str(path))
        return {name: one.signature.instructions for name, one in program.named_predictors()}

    changed = DSPyProgram("pipeline", "program", (str(folder),)).load().saved({"draft": "Guess.", "check": "Decide."})
    (folder / "changed.json").write_text(json.dumps(changed), encoding="utf-8")
    found = {
        "evaluated": [evaluated.code, evaluated.stderr, num_evaluated],
        "most_often": max(asked.values()),
        "best": dict(run.best.prompts),
        "loaded": [loaded(folder / "best.json"), loaded(folder / "changed.json")],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    sys.path.append(sys.argv[2])
    main(Path(sys.argv[1]))
