"""Optimizes a gepa adapter in this process, and the same object with gepa itself; prints what it found as JSON.

``python gepa_run.py FOLDER PACKAGES``; PACKAGES is a folder with gepa, which is searched last.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path

GOOD = (
    "Read carefully: classify the customer ticket exactly. Answer with a single word only, one lowercase category "
    "label, the best topic of billing, technical, shipping, account. Decide by department, reason, support, nothing."
)
ADAPTER = """
import os

import openai
from gepa.core.adapter import EvaluationBatch, GEPAAdapter


class Tickets(GEPAAdapter):
    def evaluate(self, batch, candidate, capture_traces=False):
        client = openai.OpenAI()
        outputs, scores, traces = [], [], []
        for row in batch:
            reply = client.chat.completions.create(
                model="task", messages=[{"role": "user", "content": candidate["label"] + "\\n" + row["text"]}]
            )
            said = reply.choices[0].message.content.strip()
            outputs.append({"said": said, "pid": os.getpid()})
            scores.append(float(said == row["label"]))
            traces.append({"row": row, "said": said})
        return EvaluationBatch(outputs, scores, traces if capture_traces else None)

    def make_reflective_dataset(self, candidate, eval_batch, components_to_update):
        records = [
            {
                "Inputs": trace["row"]["text"],
                "Generated Outputs": trace["said"],
                "Feedback": f"the category is {trace['row']['label']}",
            }
            for trace in eval_batch.trajectories
        ]
        return {name: records for name in components_to_update}


adapter = Tickets()
"""


def main(folder: Path) -> None:
    import gpo
    from actors.answers import read_answers
    from actors.folder import Folder
    from actors.search import SearchKey
    from benchmarks.simulated_endpoint import SimulatedEndpoint
    from tests.configs import triage_task

    (folder / "tickets.py").write_text(ADAPTER, encoding="utf-8")
    prompts = {"label": GOOD, "unused": "Say no more."}
    with SimulatedEndpoint() as endpoint:
        os.chdir(folder)
        run = gpo.optimize(
            **triage_task()["data"],
            fields={"target": "label"},
            program={"gepa": "tickets:adapter", "processes": 1},
            prompts=prompts,
            task_model=gpo.Endpoint(endpoint.base_url, model="task-model"),
            optimizer_model=gpo.Endpoint(endpoint.base_url, model="opt-model"),
            steps=1,
            run_dir=folder / "run",
            progress=False,
            optimizer={"candidates": 2, "direction": {"form": "feedback"}},
            evaluation={"val_size": 8, "test_size": 4},
            cache={"path": str(folder / "others.sqlite")},
            record={"answers": "all"},
        )
        asked = Counter(one.content for one in endpoint.requests if one.model == "task-model")
        sent = list(read_answers(Folder.at(str(folder / "run/trajectories")), SearchKey("task", 0)))

        import gepa  # type: ignore[import-not-found,unused-ignore]

        os.environ |= {"OPENAI_BASE_URL": endpoint.base_url, "OPENAI_API_KEY": "-"}
        sys.path.insert(0, str(folder))
        import tickets  # type: ignore[import-not-found]

        rows = [json.loads(line) for line in Path(triage_task()["data"]["val"]).read_text().splitlines()][:4]
        tickets.openai.OpenAI = lambda client=tickets.openai.OpenAI: _with_model(client(), "task-model")
        result = gepa.optimize(
            seed_candidate=prompts,
            trainset=rows,
            valset=rows,
            adapter=tickets.adapter,
            reflection_lm=lambda _: "```\nClassify the ticket as billing, technical, shipping or account.\n```",
            max_metric_calls=12,
            display_progress_bar=False,
        )
    found = {
        "most_often": max(asked.values()),
        "requests": [sum(asked.values()), run.summary["llm"]["task"]["requests"]],
        "best": dict(run.best.prompts),
        "values": sorted({row.value for row in sent}),
        "reasons": sorted({row.reason.partition(" is ")[0] for row in sent if row.value < 1}),
        "own_process": all(f'"pid": {os.getpid()}' not in row.answer for row in sent),
        "gepa": result.val_aggregate_scores[0],
    }
    print(json.dumps(found))


def _with_model(client: object, model: str) -> object:
    create = client.chat.completions.create  # type: ignore[attr-defined]
    client.chat.completions.create = lambda **options: create(**{**options, "model": model})  # type: ignore[attr-defined]
    return client


if __name__ == "__main__":
    sys.path.append(sys.argv[2])
    main(Path(sys.argv[1]))
