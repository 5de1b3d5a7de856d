from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from cluster.config import load_config
from cluster.session.models import Access, build_evaluators, build_tasks
from gpo.data.task import Split
from gpo.limits.limiter import LocalLimiter
from gpo.prompt import Prompt
from tests.configs import CHECKED
from tests.paths import ROOT, read_json

if TYPE_CHECKING:
    from tests.commands import Finished, RunGpo
    from tests.configs import WriteConfig

KEY = "canary-77aa01"
GOOD = "Read carefully and classify the customer ticket: answer with exactly one category label, a single word only."


class Evaluate(Protocol):
    def __call__(self, *options: object, env: dict[str, str] | None = None, **changes: Any) -> Finished: ...


@pytest.fixture
def evaluate(endpoint: SimulatedEndpoint, gpo: RunGpo, write_config: WriteConfig, tmp_path: Path) -> Evaluate:
    """Runs ``gpo evaluate`` with changes to the small configuration, in its folder."""

    def run(*options: object, env: dict[str, str] | None = None, **changes: Any) -> Finished:
        config = write_config(tmp_path, changes.pop("base_url", endpoint.base_url), **changes)
        return gpo("evaluate", config, *options, cwd=tmp_path, env=env)

    return run


def _num_calls(endpoint: SimulatedEndpoint) -> int:
    return sum(record.path == "/v1/chat/completions" for record in endpoint.requests)


def test_the_score_is_the_evaluator_s(endpoint: SimulatedEndpoint, evaluate: Evaluate, tmp_path: Path) -> None:
    options = ("--prompt", GOOD, "--split", "test", "--task", "triage", "--output", "score.json")
    finished = evaluate(*options)
    assert finished.code == 0, finished.stderr
    num_calls = _num_calls(endpoint)

    config = load_config(tmp_path / "config.yaml", ["cache={kind: none}"])
    (evaluator,) = build_evaluators(config, build_tasks(config), Access({}, LocalLimiter(), "account"))
    (expected,) = asyncio.run(evaluator.evaluate([Prompt(GOOD)], Split.TEST))
    score, usage = expected.score, expected.usage
    assert num_calls == usage.requests == 30
    assert finished.stdout == (
        f"triage test: {100 * score.mean:.1f} % (90 % interval: 55.1 to 81.6), 30 examples, 30 calls, "
        f"{usage.prompt_tokens} + {usage.completion_tokens} tokens\n"
    )
    document = read_json(tmp_path / "score.json")
    assert document["mean"] == score.mean
    assert document["stderr"] == score.stderr
    assert document["interval"] == {"level": 0.9, "low": 0.5506, "high": 0.8163}
    assert document["scored"] == 30
    assert document["values"] == list(score.values_E)
    assert document["usage"]["prompt_tokens"] == usage.prompt_tokens
    assert (document["task"], document["split"], document["prompt"]) == ("triage", "test", GOOD)


def test_the_first_task_s_initial_prompt_is_scored_on_val_by_default(evaluate: Evaluate) -> None:
    finished = evaluate(tasks=[{}, {"name": "other"}])
    assert finished.code == 0
    assert finished.stdout.startswith("triage val: ")
    assert ", 20 examples, " in finished.stdout


@pytest.mark.parametrize(
    ("option", "value", "remedy"),
    [
        ("--task", "nowhere", "choose one of: triage"),
        ("--split", "dev", "choose one of: train, val, test"),
        ("--prompt", " ", "write a prompt"),
        ("--output", "missing/score.json", "name another"),
    ],
)
def test_an_impossible_option_is_one_line(
    option: str, value: str, remedy: str, endpoint: SimulatedEndpoint, evaluate: Evaluate
) -> None:
    finished = evaluate(option, value)
    assert finished.code == 2
    (line,) = finished.stderr.splitlines()
    assert not [word for word in (option, value.strip(), remedy) if word not in line], line
    assert endpoint.requests == []


def test_a_prompt_of_a_template_needs_its_placeholders(endpoint: SimulatedEndpoint, evaluate: Evaluate) -> None:
    task = {"position": "template", "prompt": "Classify it.\nTicket: {{ text }}", "fields": {"input": None}}
    finished = evaluate("--prompt", "Classify the ticket.", tasks=[task])
    assert finished.code == 2
    assert finished.stderr.startswith("gpo: error: --prompt: contains {{ text }} not at all, the initial prompt once; ")
    assert endpoint.requests == []
    finished = evaluate("--prompt", "{{text}}\nWhich desk: billing, technical, shipping or account?", tasks=[task])
    assert finished.code == 0, finished.stderr
    assert "20 examples, 20 calls" in finished.stdout


def test_the_prompts_of_a_program_are_one_text_with_headings(
    endpoint: SimulatedEndpoint, evaluate: Evaluate, tmp_path: Path
) -> None:
    program = {"function": "desk:answer", "folder": str(ROOT / "examples" / "support_desk")}
    prompts = {"topic": "Which topic?", "desk": "Which desk?"}
    task = {"position": "question_end", "prompt": None, "prompts": prompts, "program": program}
    finished = evaluate("--prompt", "Which desk?", tasks=[task])
    assert finished.code == 2
    assert finished.stderr.startswith("gpo: error: --prompt: has the parts none, not topic, desk; ")
    assert endpoint.requests == []
    finished = evaluate("--prompt", f"[[topic]]\n{GOOD}\n\n[[desk]]\n{GOOD}", "--output", "score.json", tasks=[task])
    assert finished.code == 0, finished.stderr
    assert "20 examples, 40 calls" in finished.stdout
    better = read_json(tmp_path / "score.json")["mean"]
    assert evaluate("--output", "score.json", tasks=[task]).code == 0
    assert read_json(tmp_path / "score.json")["mean"] < better


def test_a_few_unscored_examples_are_tolerated_and_reported(
    endpoint: SimulatedEndpoint, evaluate: Evaluate, tmp_path: Path
) -> None:
    endpoint.behaviour = Behaviour(fail_next=3)
    finished = evaluate(
        "--output", "score.json", models={"task": {"max_attempts": 1}}, evaluation={"max_unscored": 0.2}
    )
    assert finished.code == 0, finished.stderr
    assert "20 examples, 3 unscored, 17 calls" in finished.stdout
    document = read_json(tmp_path / "score.json")
    assert document["values"].count(None) == document["usage"]["failures"] == 3


@pytest.mark.parametrize(
    ("source", "code", "message"),
    [
        (
            "def metric(*given): return 3",
            2,
            "tasks[0].answer.metric: task triage: tried on the first target: the function own:metric",
        ),
        # The targets are labels. Only a model's answer, which is never a label here, makes this metric fail.
        (
            "def metric(answer, targets, input):\n    return 1 if answer in targets else {}[answer]\n",
            1,
            "the function own:metric failed: KeyError: ",
        ),
    ],
)
def test_a_failing_custom_metric_is_one_line(
    source: str, code: int, message: str, evaluate: Evaluate, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(source, encoding="utf-8")
    finished = evaluate(tasks=[{"answer": {"kind": "custom", "metric": "own:metric"}, "prompt": "Write a poem."}])
    assert finished.code == code
    assert finished.stdout == ""
    (line,) = finished.stderr.splitlines()
    assert message in line


def test_the_judge_s_cost_is_reported_separately(
    endpoint: SimulatedEndpoint, evaluate: Evaluate, tmp_path: Path
) -> None:
    endpoint.behaviour = Behaviour(models=("task-model", "opt-model", "judge-model"))
    exact = evaluate("--output", "exact.json")
    answer = {"kind": "judge", "rubric": "The label is right.", "scale": 4}
    judge = {"base_url": endpoint.base_url, "model": "judge-model", "check": False}
    judged = evaluate("--output", "judged.json", tasks=[{"answer": answer}], models={"judge": judge})
    assert (exact.code, judged.code) == (0, 0), exact.stderr + judged.stderr
    expected, document = (read_json(tmp_path / f"{name}.json") for name in ("exact", "judged"))
    assert document["values"] == expected["values"]
    assert expected["judge"] is None
    usage, spent = document["usage"], document["judge"]
    assert (usage["requests"], usage["cached"]) == (0, 20)  # the cache has the task model's answers
    assert spent["requests"] + spent["cached"] == 20
    calls = sum(record.model == "judge-model" for record in endpoint.requests)
    assert spent["requests"] == calls > 0
    assert f"; judge: {calls} calls" in judged.stdout
    assert f"{spent['prompt_tokens']} + {spent['completion_tokens']} tokens" in judged.stdout


@pytest.mark.parametrize(("cache", "calls"), [("sqlite", 20), ("none", 21)])
def test_the_call_of_the_check_counts_and_is_answered_from_the_cache(
    cache: str, calls: int, endpoint: SimulatedEndpoint, evaluate: Evaluate, tmp_path: Path
) -> None:
    path = {} if cache == "none" else {"path": str(tmp_path / "completions.sqlite")}
    finished = evaluate(models=CHECKED, cache={"kind": cache, **path})
    assert finished.code == 0, finished.stderr
    assert f", 20 examples, {calls} calls, " in finished.stdout
    assert _num_calls(endpoint) == calls


@pytest.mark.parametrize(
    ("models", "env"),
    [
        (None, {"OPENAI_BASE_URL": "ENDPOINT", "OPENAI_API_KEY": KEY}),
        (
            {"task": {"model": "my-model", "api_key_env": "MY_KEY"}},
            {"MY_KEY": KEY, "OPENAI_API_KEY": "another", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"},
        ),
        ({"task": {"api_key_file": "key"}}, {"OPENAI_API_KEY": "another"}),
    ],
    ids=["usual variables", "base_url and a named variable first", "key file before variables"],
)
def test_endpoint_and_key_come_from_variables_file_and_configuration(
    models: Any, env: dict[str, str], endpoint: SimulatedEndpoint, evaluate: Evaluate, tmp_path: Path
) -> None:
    endpoint.behaviour = Behaviour(api_key=KEY, models=("task-model", "my-model"))
    (tmp_path / "key").write_text(f"{KEY}\n", encoding="utf-8")
    env = {name: endpoint.base_url if value == "ENDPOINT" else value for name, value in env.items()}
    base_url = endpoint.base_url if models else None
    finished = evaluate(env=env, base_url=base_url, models=models or {})
    assert finished.code == 0, finished.stderr
    assert {record.status for record in endpoint.requests} == {200}


def test_a_damaged_cache_is_reported_once_and_costs_only_calls(
    endpoint: SimulatedEndpoint, evaluate: Evaluate, tmp_path: Path
) -> None:
    (tmp_path / "completions.sqlite").write_bytes(b"no database" * 1000)
    first, second = evaluate(), evaluate()
    assert (first.code, second.code) == (0, 0), first.stderr
    assert (", 20 calls, " in first.stdout, ", 20 calls, " in second.stdout) == (True, True)
    assert (first.stderr + second.stderr).count("is no longer used by this process") == 1
    assert _num_calls(endpoint) == 40
