"""``gpo runs``, ``gpo diff`` and ``gpo export`` on runs that this process has made on the simulated endpoint."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import gpo as library
from benchmarks.simulated_endpoint import SimulatedEndpoint
from cluster.reporting.diff import word_diff
from tests.commands import RunGpo
from tests.unit.cluster.api.test_optimize import ROWS, arguments

TEMPLATE = [{"ticket": row["text"], "team": row["label"]} for row in ROWS["val"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("runs")
    (made / "a file").touch()
    (made / "no run").mkdir()
    (made / "damaged").mkdir()
    (made / "damaged/summary.json").write_text('{"spent": 3, "trajectories": [7, {}], "status": "\\u001b[31mred"}')
    with SimulatedEndpoint() as endpoint:
        library.optimize(**arguments(endpoint, made, run_dir=made / "plain"))
        given = arguments(endpoint, made, run_dir=made / "template", steps=1)
        given = {name: value for name, value in given.items() if name not in ("train", "val", "test", "position")}
        prompt = {"system": "You route tickets.", "user": "Which team? {{ ticket }}"}
        library.optimize(**{**given, "prompt": prompt, "data": TEMPLATE, "name": "routing"})
    return made


def best(folder: Path) -> Any:
    return library.Run.open(folder).best


def test_runs_are_listed_the_newest_first(gpo: RunGpo, folder: Path) -> None:
    listed = gpo("runs", ".", cwd=folder)
    assert listed.code == 0
    assert "\x1b" not in listed.stdout
    rows = [json.loads(line) for line in gpo("runs", ".", "--json", cwd=folder).stdout.splitlines()]
    assert [row["name"] for row in rows] == ["template", "plain", "damaged"]
    assert rows[0]["tasks"] == ["routing"]
    assert (rows[1]["status"], rows[1]["best"]) == ("completed", pytest.approx(best(folder / "plain").test, abs=1e-4))
    assert rows[1]["calls"] > 0
    assert gpo("runs", "no run", cwd=folder).stdout == ""
    assert gpo("runs", "a file", cwd=folder).stdout == ""


def test_a_diff_marks_words(gpo: RunGpo, folder: Path) -> None:
    run = library.Run.open(folder / "plain")
    initial, found = run.candidates()[0].prompt, run.best.prompt
    marks = {"same": "{}", "deleted": "[-{}-]", "inserted": "{{+{}+}}"}
    merged = "".join(marks[part.change].format(part.text) for part in word_diff(initial, found))
    assert merged in gpo("diff", "plain", cwd=folder).stdout
    assert gpo("diff", "plain", "template", cwd=folder).code == 2
    assert "[-" not in gpo("diff", "plain", "plain", cwd=folder).stdout
    refused = gpo("diff", "plain", "--to", "zzz", cwd=folder)
    assert (refused.code, "there is no prompt 'zzz'" in refused.stderr) == (2, True)


def exported(gpo: RunGpo, folder: Path, run: str, form: str) -> str:
    done = gpo("export", run, "--format", form, cwd=folder)
    assert done.code == 0, done.stderr
    return done.stdout


def test_a_prompt_is_exported_as_text_and_with_its_scores(gpo: RunGpo, folder: Path) -> None:
    found = best(folder / "plain")
    assert exported(gpo, folder, "plain", "text") == f"{found.prompt}\n"
    document = json.loads(exported(gpo, folder, "plain", "json"))
    assert (document["prompt"], document["test"]) == (found.prompt, pytest.approx(found.test, abs=1e-4))
    done = gpo("export", "plain", "--output", "prompt.txt", cwd=folder)
    assert (done.code, (folder / "prompt.txt").read_text()) == (0, f"{found.prompt}\n")


def test_a_request_has_placeholders_for_the_columns(gpo: RunGpo, folder: Path) -> None:
    request = json.loads(exported(gpo, folder, "plain", "openai"))
    assert request["messages"] == [{"role": "user", "content": f"{best(folder / 'plain').prompt}\n{{{{ input }}}}"}]
    assert (request["model"], request["temperature"], request["max_tokens"]) == ("task-model", 0.0, 64)
    system, user = json.loads(exported(gpo, folder, "template", "openai"))["messages"]
    assert (system["role"], user["role"]) == ("system", "user")
    assert "{{ ticket }}" in user["content"]


def test_promptfoo_gets_the_test_examples(gpo: RunGpo, folder: Path) -> None:
    document = yaml.safe_load(exported(gpo, folder, "plain", "promptfoo"))
    assert len(document["tests"]) == 20
    assert {test["vars"]["input"] for test in document["tests"]} <= {row["text"] for row in ROWS["test"]}
    assert json.loads(document["prompts"][0]["raw"])[-1]["content"].endswith("{{ input }}")
    assert "tests" not in yaml.safe_load(exported(gpo, folder, "template", "promptfoo"))


def test_inspect_gets_a_log_of_the_answers(gpo: RunGpo, folder: Path, tmp_path: Path) -> None:
    log = json.loads(exported(gpo, folder, "plain", "inspect"))
    found = best(folder / "plain")
    assert (log["version"], log["status"], log["eval"]["metadata"]["prompt"]) == (2, "success", found.prompt)
    assert [sample["id"] for sample in log["samples"]] == log["eval"]["dataset"]["sample_ids"]
    means = {score["name"]: score["metrics"]["mean"]["value"] for score in log["results"]["scores"]}
    assert means == {"test": pytest.approx(found.test), "val": pytest.approx(found.val)}
    texts = {row["text"]: row["label"] for rows in ROWS.values() for row in rows}
    for sample in log["samples"]:
        asked, reply = sample["messages"]
        assert asked == {"role": "user", "content": f"{found.prompt}\n{sample['input']}"}
        assert (sample["target"], sample["output"]["completion"]) == ([texts[sample["input"]]], reply["content"])
        assert sample["scores"][sample["metadata"]["split"]]["value"] == float(reply["content"] in sample["target"])
    template = json.loads(exported(gpo, folder, "template", "inspect"))
    assert [message["role"] for message in template["samples"][0]["messages"]] == ["user", "assistant"]
    # In a folder, the log has a name that ``inspect view`` finds.
    assert gpo("export", "plain", "--format", "inspect", "--output", tmp_path, cwd=folder).code == 0
    (written,) = tmp_path.iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d_task_plain-task-0\.json", written.name)


def test_inspect_ai_reads_the_log(gpo: RunGpo, folder: Path, tmp_path: Path) -> None:
    logs = pytest.importorskip("inspect_ai.log", reason="inspect_ai is not installed")
    assert gpo("export", "plain", "--format", "inspect", "--output", tmp_path, cwd=folder).code == 0
    (info,) = logs.list_eval_logs(str(tmp_path))
    log = logs.read_eval_log(info)
    assert (info.task, log.status, len(log.samples), log.samples[0].id) == ("task", "success", 40, "test/1")


def test_dspy_gets_a_signature(gpo: RunGpo, folder: Path) -> None:
    plain, template = (json.loads(exported(gpo, folder, run, "dspy")) for run in ("plain", "template"))
    assert plain["signature"]["instructions"] == best(folder / "plain").prompt
    assert [field["description"] for field in template["signature"]["fields"]] == ["${ticket}", "${answer}"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "xml"], "--format: 'xml' is unknown; choose one of: text, json, openai"),
        (["--task", "other"], "--task: 'other' is not in the run; choose one of: task"),
        (["--output", "no/folder"], "--output: 'no/folder' is in a folder that does not exist"),
    ],
)
def test_mistakes_are_named(options: list[str], message: str, gpo: RunGpo, folder: Path) -> None:
    refused = gpo("export", "plain", *options, cwd=folder)
    assert refused.code == 2
    assert message in refused.stderr
