from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from cluster.config import load_config
from cluster.session.models import Access, build_evaluators, build_tasks
from gpo.data.task import Split
from gpo.limits.limiter import LocalLimiter
from gpo.prompt import Prompt

if TYPE_CHECKING:
    from tests.e2e.conftest import Gpo, WriteConfig

GOOD = "Read carefully and classify the customer ticket: answer with exactly one category label, a single word only."


async def test_the_score_is_the_evaluator_s_own(
    endpoint: SimulatedEndpoint, gpo: Gpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    path = write_config(tmp_path, endpoint.base_url)
    finished = gpo(
        "evaluate", path, "--prompt", GOOD, "--split", "test", "--task", "triage", "--output", "score.json",
        cwd=tmp_path,
    )  # fmt: skip
    assert finished.code == 0, finished.stderr
    num_calls = sum(record.path == "/v1/chat/completions" for record in endpoint.requests)

    config = load_config(path, ["cache={kind: none}"])
    (evaluator,) = build_evaluators(config, build_tasks(config), Access({}, LocalLimiter(), "account"))
    (expected,) = await evaluator.evaluate([Prompt(GOOD)], Split.TEST)
    score, usage = expected.score, expected.usage
    assert num_calls == usage.requests == 30
    assert finished.stdout == (
        f"triage test: {100 * score.mean:.1f} % ± {100 * score.stderr:.1f} (standard error), 30 examples, 30 calls, "
        f"{usage.prompt_tokens} + {usage.completion_tokens} tokens\n"
    )
    document = json.loads((tmp_path / "score.json").read_text(encoding="utf-8"))
    assert document["mean"] == score.mean
    assert document["stderr"] == score.stderr
    assert document["values"] == list(score.values_E)
    assert document["usage"]["prompt_tokens"] == usage.prompt_tokens
    assert (document["task"], document["split"], document["prompt"]) == ("triage", "test", GOOD)


def test_the_initial_prompt_on_val_is_meant_where_nothing_is_said(
    endpoint: SimulatedEndpoint, gpo: Gpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    tasks = [{}, {"name": "other"}]
    finished = gpo("evaluate", write_config(tmp_path, endpoint.base_url, tasks=tasks), cwd=tmp_path)
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
def test_an_option_that_cannot_be_used_is_refused(
    option: str,
    value: str,
    remedy: str,
    endpoint: SimulatedEndpoint,
    gpo: Gpo,
    write_config: WriteConfig,
    tmp_path: Path,
) -> None:
    finished = gpo("evaluate", write_config(tmp_path, endpoint.base_url), option, value, cwd=tmp_path)
    assert finished.code == 2
    (line,) = finished.stderr.splitlines()
    assert option in line
    assert value.strip() in line
    assert remedy in line
    assert endpoint.requests == []


def test_an_unknown_model_at_an_endpoint_without_a_list_is_found_at_the_first_call(
    endpoint: SimulatedEndpoint, gpo: Gpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    endpoint.behaviour = Behaviour(list_models=False)
    config = write_config(tmp_path, endpoint.base_url, models={"task": {"model": "task-modle"}})
    finished = gpo("evaluate", config, cwd=tmp_path)
    assert finished.code == 2
    (line,) = finished.stderr.splitlines()
    assert "models.task.model: 'task-modle' is unknown at" in line
    assert "correct the name" in line


def test_a_few_unscored_examples_are_tolerated_and_told(
    endpoint: SimulatedEndpoint, gpo: Gpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    endpoint.behaviour = Behaviour(fail_next=3)
    config = write_config(
        tmp_path, endpoint.base_url, models={"task": {"max_attempts": 1}}, evaluation={"max_unscored": 0.2}
    )
    finished = gpo("evaluate", config, "--output", "score.json", cwd=tmp_path)
    assert finished.code == 0, finished.stderr
    assert "20 examples, 3 unscored, 17 calls" in finished.stdout
    document = json.loads((tmp_path / "score.json").read_text(encoding="utf-8"))
    assert document["values"].count(None) == document["usage"]["failures"] == 3


def test_too_many_unscored_examples_fail_with_one_line(
    endpoint: SimulatedEndpoint, gpo: Gpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    endpoint.behaviour = Behaviour(fail_next=3)
    config = write_config(tmp_path, endpoint.base_url, models={"task": {"max_attempts": 1}})
    finished = gpo("evaluate", config, cwd=tmp_path)
    assert finished.code == 1
    assert finished.stdout == ""
    (line,) = finished.stderr.splitlines()
    assert "3 of 20 val examples of task triage stayed unscored" in line
    assert "evaluation.max_unscored" in line


def test_a_metric_of_the_users_own_beside_the_configuration(
    endpoint: SimulatedEndpoint, gpo: Gpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "own_metric.py").write_text(
        "def half(answer, targets, input):\n    return 0.5 if answer.strip().lower() in targets else 0\n",
        encoding="utf-8",
    )
    exact = gpo("evaluate", write_config(folder, endpoint.base_url), "--output", "exact.json", cwd=tmp_path)
    answer = {"kind": "custom", "metric": "own_metric:half"}
    custom = gpo(
        "evaluate", write_config(folder, endpoint.base_url, tasks=[{"answer": answer}]), "--output", "custom.json",
        cwd=tmp_path,
    )  # fmt: skip
    assert (exact.code, custom.code) == (0, 0), exact.stderr + custom.stderr
    expected, document = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("exact", "custom"))
    assert document["values"] == [value / 2 for value in expected["values"]]
    assert 0.5 in document["values"]


@pytest.mark.parametrize(
    ("source", "code", "said"),
    [
        (
            "def metric(*given): return 3",
            2,
            "tasks[0].answer.metric: task triage: tried on the first target: the function own:metric",
        ),
        # The targets are labels: only a model's answer, here never a label, makes this one fail.
        (
            "def metric(answer, targets, input):\n    return 1 if answer in targets else {}[answer]\n",
            1,
            "the function own:metric failed: KeyError: ",
        ),
    ],
)
def test_a_metric_that_fails_is_one_line(
    source: str, code: int, said: str, endpoint: SimulatedEndpoint, gpo: Gpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(source, encoding="utf-8")
    answer = {"kind": "custom", "metric": "own:metric"}
    config = write_config(tmp_path, endpoint.base_url, tasks=[{"answer": answer, "prompt": "Write a poem."}])
    finished = gpo("evaluate", config, cwd=tmp_path)
    assert finished.code == code
    assert finished.stdout == ""
    (line,) = finished.stderr.splitlines()
    assert said in line


def test_a_language_model_judges_and_its_cost_is_told_apart(
    endpoint: SimulatedEndpoint, gpo: Gpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    endpoint.behaviour = Behaviour(models=("task-model", "opt-model", "judge-model"))
    exact = gpo("evaluate", write_config(tmp_path, endpoint.base_url), "--output", "exact.json", cwd=tmp_path)
    answer = {"kind": "judge", "rubric": "The label is right.", "scale": 4}
    judge = {"base_url": endpoint.base_url, "model": "judge-model"}
    config = write_config(tmp_path, endpoint.base_url, tasks=[{"answer": answer}], models={"judge": judge})
    judged = gpo("evaluate", config, "--output", "judged.json", cwd=tmp_path)
    assert (exact.code, judged.code) == (0, 0), exact.stderr + judged.stderr
    expected, document = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("exact", "judged"))
    assert document["values"] == expected["values"]
    assert expected["judge"] is None
    usage, spent = document["usage"], document["judge"]
    assert (usage["requests"], usage["cached"]) == (0, 20)  # the task model's answers are known by now
    assert spent["requests"] + spent["cached"] == 20
    calls = sum(record.model == "judge-model" for record in endpoint.requests)
    assert spent["requests"] == calls > 0
    assert f"; judge: {calls} calls" in judged.stdout
    assert f"{spent['prompt_tokens']} + {spent['completion_tokens']} tokens" in judged.stdout


def test_a_judge_that_is_not_known_is_named_before_anything_is_asked(
    endpoint: SimulatedEndpoint, gpo: Gpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    answer = {"kind": "judge", "rubric": "The label is right."}
    judge = {"base_url": endpoint.base_url, "model": "jugde"}
    config = write_config(tmp_path, endpoint.base_url, tasks=[{"answer": answer}], models={"judge": judge})
    finished = gpo("evaluate", config, cwd=tmp_path)
    assert finished.code == 2
    assert "models.judge.model: 'jugde' is unknown" in finished.stderr
    assert not any(record.path == "/v1/chat/completions" for record in endpoint.requests)
