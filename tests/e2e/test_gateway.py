"""A program whose framework has a client of its own, in the replicas of a run with Ray."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from tests.commands import Gpo
from tests.configs import WriteConfig

_LIMIT, _BUDGET = 6, 150

_PROGRAM = """
import openai

CLIENT = openai.OpenAI()  # knows the environment alone


def ask(text):
    messages = [{"role": "user", "content": text}]
    return CLIENT.chat.completions.create(model="task", messages=messages).choices[0].message.content


def answer(prompts, example, client):
    draft = ask(prompts["prompt"] + "\\n" + example["text"])
    return ask(prompts["prompt"] + "\\n" + example["text"] + "\\n" + "A colleague says: " + draft)
"""


def test_calls_over_http_keep_the_limits_the_cache_and_the_budget(
    gpo: Gpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    (tmp_path / "agent.py").write_text(_PROGRAM, encoding="utf-8")
    with SimulatedEndpoint(Behaviour(latency_s=0.02)) as endpoint:
        config = write_config(
            tmp_path,
            endpoint.base_url,
            tasks=[{"position": "program", "program": {"function": "agent:answer", "gateway": True}}],
            cluster={"evaluator_replicas": 2},
            models={
                "task": {"max_concurrency": _LIMIT, "sampling": {"temperature": 0.0}},
                "optimizer": {"max_concurrency": _LIMIT},
            },
            budget={"calls": _BUDGET},
        )
        finished = gpo("run", config, "--run-dir", tmp_path / "results", cwd=tmp_path)
        requests = endpoint.requests

    assert finished.code == 1, finished.stderr
    assert "Stopped by budget.calls" in finished.stderr
    asked = [request for request in requests if request.model == "task-model"]
    assert len(requests) == _BUDGET
    assert max(request.in_flight for request in asked) <= _LIMIT
    assert max(Counter(request.content for request in asked).values()) == 1
    summary = json.loads((tmp_path / "results" / "summary.json").read_text(encoding="utf-8"))
    assert summary["spent"]["calls"] == _BUDGET
