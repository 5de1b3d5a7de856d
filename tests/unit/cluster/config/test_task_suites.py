"""Entries of ``tasks``: those that expand to several tasks, few-shot examples, templates, the Hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.config.loading import dump, validate
from cluster.config.run import RunConfig
from cluster.config.tasks import BenchmarkConfig
from cluster.session.models import build_tasks
from gpo.data.catalogue import tasks_of
from gpo.data.task import Split
from gpo.errors import ConfigError
from tests.configs import refused

MODEL = {"base_url": "http://127.0.0.1:9/v1", "model": "a-model"}


def config(folder: Path, *tasks: dict[str, Any]) -> RunConfig:
    return validate({"models": {"task": MODEL, "optimizer": MODEL}, "tasks": list(tasks)}, base_dir=folder)


def refusal(folder: Path, *tasks: dict[str, Any]) -> ConfigError:
    return refused(lambda: build_tasks(config(folder, *tasks)))


def names(config: RunConfig) -> list[str]:
    return [task.name for task in config.tasks]


def bbh(tasks: Any, /, **options: Any) -> dict[str, Any]:
    return {"data": {"benchmark": "bbh", "name": tasks, "root": "data"}, **options}


@pytest.mark.parametrize("benchmark", ["bbh", "mmlu", "gsm8k", "wsc", "webnlg"])
def test_all_expands_to_every_task(benchmark: str, tmp_path: Path) -> None:
    found = config(tmp_path, {"data": {"benchmark": benchmark, "name": "all", "root": "data"}})
    assert names(found) == [task.name for task in tasks_of(benchmark)]


def test_a_list_expands_to_its_tasks_in_order_with_the_same_settings(tmp_path: Path) -> None:
    found = config(
        tmp_path,
        {"name": "own", "data": {"train": "a.jsonl", "val": "b.jsonl", "test": "c.jsonl"}},
        bbh(["snarks", "navigate"], prompt="Think.", position="system", shots=3, answer={"parser": "paper"}),
    )
    assert names(found) == ["own", "snarks", "navigate"]
    for task in found.tasks[1:]:
        assert isinstance(task.data, BenchmarkConfig)
        assert (task.data.name, task.data.root) == (task.name, tmp_path / "data")
        assert (task.prompt, task.position, task.shots, task.answer.parser) == ("Think.", "system", 3, "paper")


def test_the_dump_lists_the_tasks_one_by_one(tmp_path: Path) -> None:
    found = config(tmp_path, bbh(["snarks", "navigate"]), bbh("hyperbaton"))
    dumped = yaml.safe_load(dump(found))
    assert [task["data"]["name"] for task in dumped["tasks"]] == ["snarks", "navigate", "hyperbaton"]
    assert validate(dumped, base_dir=Path("/elsewhere")) == found


@pytest.mark.parametrize(
    ("tasks", "field", "said"),
    [
        ([bbh(["navigate", "snark"])], "tasks[0].data.name", "'snark' is not a task of bbh; did you mean snarks?"),
        ([bbh(["navigate", "all"])], "tasks[0].data.name", "'all' is not a task of bbh; choose among: boolean_expr"),
        ([bbh(["Snarks", "navigate"])], "tasks[0].data.name", "'Snarks' is not a task of bbh; did you mean snarks"),
        ([bbh(3)], "tasks[0].data.name", "3 is not the name of a task; name one, a list of them, or all"),
        ([bbh(["snarks", 3])], "tasks[0].data.name", "3 is not the name of a task"),
        ([bbh({"a": 1})], "tasks[0].data.name", "{'a': 1} is not the name of a task"),
        ([bbh("a b")], "tasks[0].data.name", "'a b' is not the name of a task"),
        ([bbh(3, name="mine")], "tasks[0].data.name", "3 is not the name of a task"),
        ([bbh(None)], "tasks[0].data.name", "is missing; name one, a list of them, or all"),
        ([{"data": {"benchmark": "bbh", "root": "."}}], "tasks[0].data.name", "is missing; name one, a list"),
        ([{"data": {"benchmark": ["bbh"], "root": "."}}], "tasks[0].data.benchmark", "choose one of"),
        ([bbh([])], "tasks[0].data.name", "names no task; name some, or write all"),
        ([bbh("all", name="bbh")], "tasks[0].name", "is one name for several tasks; leave it out"),
        ([bbh(["navigate"], name="mine")], "tasks[0].name", "is one name for several tasks; leave it out"),
        ([bbh("all"), bbh("navigate")], "tasks", "duplicate task name 'navigate'"),
        ([bbh(["snarks", "snarks"])], "tasks", "duplicate task name 'snarks'"),
        ([bbh("all"), bbh("own", prompt=" ")], "tasks[1].prompt", "at least one character"),
        ([bbh("all", promt="a")], "tasks[0].promt", "did you mean 'prompt'?"),
        ([{"data": {"benchmark": "bbh", "name": "all"}}], "tasks[0].data.root", "is missing"),
        ([{"data": {"benchmark": "glue", "name": "all", "root": "."}}], "tasks[0].data.benchmark", "choose one of"),
        ([bbh("navigate", shots=-1)], "tasks[0].shots", "at least 0"),
    ],
)
def test_mistakes_are_found_before_any_file_is_opened(
    tasks: list[dict[str, Any]], field: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        config(tmp_path, *tasks)
    assert caught.value.field == field
    assert said in str(caught.value)


def files(folder: Path, rows: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    for name, content in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    return {name: f"{name}.jsonl" for name in rows}


def rows(split: str, count: int) -> list[dict[str, Any]]:
    return [{"input": f"{split} {index}", "target": "yes" if index % 2 else "no"} for index in range(count)]


def splits(**more: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return {"train": rows("train", 8), "val": rows("val", 4), "test": rows("test", 4), **more}


def test_a_task_of_a_benchmark_is_judged_and_grouped_by_the_catalogue(tmp_path: Path) -> None:
    for name in ("logical_deduction_five_objects", "navigate"):
        folder = tmp_path / "data/bbh" / name
        folder.mkdir(parents=True)
        target = "(A)" if name.startswith("logical") else "Yes"
        for file in ("train", "eval", "test", "few_shot_examples"):
            (folder / f"{file}.jsonl").write_text(json.dumps({"input": file, "target": target}), encoding="utf-8")
    first, second = build_tasks(config(tmp_path, bbh(["logical_deduction_five_objects", "navigate"], shots=1)))
    assert (first.group, first.counts_as) == ("BBH algorithmic", "logical_deduction")
    assert (second.group, second.counts_as) == ("BBH algorithmic", "navigate")
    assert type(first.scorer).__name__ == "ChoiceScorer"
    assert type(second.scorer).__name__ == "BooleanScorer"
    assert [example.input for example in second.answer_format.demonstrations] == ["few_shot_examples"]
    assert "task navigate: 2 is too many" in str(refusal(tmp_path, bbh("navigate", shots=2)))


def test_an_error_in_one_of_several_tasks_names_it(tmp_path: Path) -> None:
    error = refusal(tmp_path, bbh(["snarks", "navigate"]))
    assert error.field == "tasks[0].data.root"
    assert error.problem.startswith("task snarks: ")


@pytest.mark.parametrize("beside", [False, True], ids=["an empty folder", "another benchmark"])
def test_a_folder_without_any_task_is_a_wrong_root(beside: bool, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    if beside:
        (tmp_path / "data/gsm8k").mkdir()
        (tmp_path / "data/gsm8k/train.jsonl").touch()
    error = refusal(tmp_path, bbh("all"))
    assert error.field == "tasks[0].data.root"
    assert "contains no task of bbh" in error.problem


def test_a_task_in_capitals_suggests_the_right_name(tmp_path: Path) -> None:
    (tmp_path / "data/navigate").mkdir(parents=True)
    (tmp_path / "data/navigate/train.jsonl").touch()
    error = refusal(tmp_path, bbh("Navigate"))
    assert (error.field, error.remedy) == ("tasks[0].data.name", "did you mean 'navigate'?")


def test_tasks_from_files_have_no_group_and_take_shots_from_train(tmp_path: Path) -> None:
    data = files(tmp_path, splits())
    (task,) = build_tasks(config(tmp_path, {"name": "own", "data": data, "shots": 2}))
    assert (task.group, task.counts_as) == ("", "")
    shown = {example.input for example in task.answer_format.demonstrations}
    assert len(shown) == 2
    assert shown | {example.input for example in task.examples[Split.TRAIN]} == {f"train {i}" for i in range(8)}
    assert refusal(tmp_path, {"name": "own", "data": data, "shots": 8}).field == "tasks[0].shots"


def test_files_may_have_few_shot_examples_of_their_own(tmp_path: Path) -> None:
    data = files(tmp_path, splits(few_shot=[*rows("shown", 3), {"input": "train 0", "target": "no"}]))
    (task,) = build_tasks(config(tmp_path, {"name": "own", "data": data, "shots": 4}))
    shown = [example.input for example in task.answer_format.demonstrations]
    assert shown == ["shown 0", "shown 1", "shown 2", "train 0"]
    assert len(task.examples[Split.TRAIN]) == 8
    assert "the data has 4" in str(refusal(tmp_path, {"name": "own", "data": data, "shots": 5}))


@pytest.mark.parametrize("split", ["val", "test"])
def test_few_shot_examples_that_are_held_out_are_refused(split: str, tmp_path: Path) -> None:
    data = files(tmp_path, splits(few_shot=[{"input": f" {split.upper()} 1", "target": "yes"}]))
    error = refusal(tmp_path, {"name": "own", "data": data})
    assert error.field == "tasks[0].data"
    assert f"is in both few_shot and {split}" in error.problem


def test_one_file_is_divided_into_the_splits(tmp_path: Path) -> None:
    written = rows("any", 20)
    (tmp_path / "all.csv").write_text(
        "input;target\n" + "\n".join(f"{one['input']};{one['target']}" for one in written)
    )
    sizes = {"train": 0.2, "val": 4, "test": 0.4, "seed": 3}
    found = config(tmp_path, {"name": "own", "data": {"file": "all.csv", "split": sizes}, "shots": 1})
    (task,) = build_tasks(found)
    assert [len(task.examples[split]) for split in Split] == [3, 4, 8]
    assert len(task.answer_format.demonstrations) == 1
    assert validate(yaml.safe_load(dump(found)), base_dir=tmp_path) == found
    (same,) = build_tasks(found)
    assert same.examples == task.examples
    (default,) = build_tasks(config(tmp_path, {"name": "own", "data": {"file": "all.csv"}}))
    assert [len(default.examples[split]) for split in Split] == [4, 8, 8]


@pytest.mark.parametrize(
    ("data", "field", "said"),
    [
        ({"split": {"train": 0.5}}, "tasks[0].data.split", "are more than 1 together (1.3); make one smaller"),
        ({"split": {"val": 1.5}}, "tasks[0].data.split.val", "1.5 is neither a share nor a number of examples"),
        ({"split": {"val": 0}}, "tasks[0].data.split.val", "0 cannot be used; use a value above 0"),
        ({"split": {"val": 30}}, "tasks[0].data.split", "needs 42 different inputs; the file has 20"),
        ({"split": {"train": 0.01}}, "tasks[0].data.split.train", "0.01 of 20 different inputs is no example"),
        ({"split": {"dev": 0.1}}, "tasks[0].data.split.dev", "is not an option; choose among: train, val, test, seed"),
        ({"train": "train.jsonl"}, "tasks[0].data.train", "is not an option; choose among: file, split, few_shot"),
        ({"file": "missing.csv"}, "tasks[0].data.file", "missing.csv' does not exist"),
    ],
)
def test_a_file_that_cannot_be_divided_is_refused(data: dict[str, Any], field: str, said: str, tmp_path: Path) -> None:
    files(tmp_path, {"all": rows("any", 20)})
    with pytest.raises(ConfigError) as caught:
        build_tasks(config(tmp_path, {"name": "own", "data": {"file": "all.jsonl", **data}}))
    assert caught.value.field == field
    assert said in str(caught.value)


def test_repeated_and_contradicting_rows_of_a_file_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    repeated = [{"input": "a", "target": 1}, {"input": "a", "target": 1.0}, {"input": "A", "target": 0}]
    build_tasks(config(tmp_path, {"name": "own", "data": files(tmp_path, {**splits(), "val": repeated})}))
    assert [record.getMessage().partition(" row ")[::2] for record in caplog.records] == [
        (
            "tasks[0].data.val (val.jsonl): 1",
            "repeats an earlier row, in line 2; each of them counts again",
        ),
        (
            "tasks[0].data.val (val.jsonl): 1",
            "has the input of an earlier row and another target, in lines 1 and 3; no answer is right for both, so "
            "correct one, or write the targets as a list",
        ),
    ]


def test_an_input_is_made_of_several_columns(tmp_path: Path) -> None:
    fields = {"template": "Is {{ input }} odd?", "target": "target"}
    task = {"name": "own", "data": files(tmp_path, splits()), "fields": fields}
    found = config(tmp_path, task)
    assert build_tasks(found)[0].examples[Split.VAL][0].input == "Is val 0 odd?"
    assert validate(yaml.safe_load(dump(found)), base_dir=tmp_path) == found
    error = refusal(tmp_path, {**task, "fields": {"template": "{{ text }}"}})
    assert error.field == "tasks[0].data.train (train.jsonl:1)"
    assert "correct tasks[0].fields.template" in error.remedy


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"template": "{{ a }", "target": "b"}, "tasks[0].fields.template", "is not a valid template (line 1"),
        ({"template": "{{ a }}", "input": "a"}, "tasks[0].fields.template", "is set as well as input; keep one"),
        (
            {"target_template": "{{ a }}", "target": "a"},
            "tasks[0].fields.target_template",
            "is set as well as target; keep one",
        ),
    ],
)
def test_a_template_is_checked_with_the_configuration(
    fields: dict[str, str], field: str, said: str, tmp_path: Path
) -> None:
    data = {"train": "a.jsonl", "val": "b.jsonl", "test": "c.jsonl"}
    with pytest.raises(ConfigError) as caught:
        config(tmp_path, {"name": "own", "data": data, "fields": fields})
    assert caught.value.field == field
    assert said in str(caught.value)


def test_a_benchmark_knows_its_own_columns(tmp_path: Path) -> None:
    assert refusal(tmp_path, bbh("navigate", fields={"input": "text"})).field == "tasks[0].fields"


@pytest.fixture
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Read when the package is imported; another test may have done that already.
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "home")


@pytest.mark.usefixtures("_offline")
def test_a_local_folder_is_read_as_a_data_set_of_the_hub(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    files(tmp_path / "set", {"train": rows("train", 10), "test": rows("test", 4)})
    data = {"huggingface": "./set", "train": "train[:60%]", "val": "train[50%:]", "test": "test"}
    found = config(tmp_path, {"name": "hub", "data": data, "shots": 1})
    assert found.tasks[0].data.model_dump()["huggingface"] == str(tmp_path / "set")
    (task,) = build_tasks(found)
    assert [len(task.examples[split]) for split in Split] == [4, 5, 4]
    assert (task.group, task.answer_format.rounds) == ("", 1)
    error = refusal(tmp_path, {"name": "hub", "data": {**data, "few_shot": "dev"}})
    assert error.field == "tasks[0].data.few_shot"


def test_a_data_set_of_the_hub_names_its_splits(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config(tmp_path, {"name": "hub", "data": {"huggingface": "owner/name", "train": "train", "val": "train"}})
    assert str(caught.value) == "tasks[0].data.test: is missing; set it"
