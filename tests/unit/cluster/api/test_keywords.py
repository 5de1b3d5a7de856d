"""The arguments of ``gpo.optimize`` become a configuration."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import gpo
from actors.folder import Folder
from cluster.api.keywords import Arguments, named_by_arguments
from cluster.config import RunConfig
from gpo.data.template import Template
from gpo.errors import ConfigError

ROWS = [{"text": f"ticket {number}", "label": label} for number, label in enumerate("ababababab")]


def weighted(answer: str, example: gpo.Example) -> float:
    return float(answer == example.target)


class Client:
    async def __call__(self, messages: list[dict[str, str]], **sampling: Any) -> str:
        return "a"


def configured(folder: Path, **values: Any) -> RunConfig:
    given = {"task_model": "a-model", "data": ROWS, "name": "task", "seed": 0, **values}
    with named_by_arguments():
        arguments = Arguments(given)
        config = arguments.configuration(Folder.at(str(folder)))
        arguments.save_rows(Folder.at(str(folder)), is_new=True)
        return config


@pytest.mark.parametrize(
    "rows",
    [ROWS, tuple(ROWS), pd.DataFrame(ROWS), (dict(row) for row in ROWS)],
    ids=["list", "tuple", "data frame", "generator"],
)
def test_rows_become_a_file_in_the_folder_of_the_run(rows: Any, tmp_path: Path) -> None:
    config = configured(tmp_path, data=rows, split=(0.2, 0.4, 0.4))
    assert [json.loads(line) for line in (tmp_path / "data/data.jsonl").read_text().splitlines()] == ROWS
    assert config.tasks[0].data.model_dump(mode="json")["file"] == str(tmp_path / "data/data.jsonl")


def test_values_that_json_does_not_have_are_written_as_their_nearest(tmp_path: Path) -> None:
    row = {"text": np.str_("a"), "label": np.int64(3), "share": float("nan"), "when": pd.Timestamp("2026-01-01")}
    configured(tmp_path, data=[row], fields={"input": "text", "target": "label"})
    written = json.loads((tmp_path / "data/data.jsonl").read_text())
    assert written == {"text": "a", "label": 3, "share": None, "when": "2026-01-01 00:00:00"}


@pytest.mark.parametrize(
    ("rows", "prompt", "expected"),
    [
        ([{"text": "x", "label": "a"}], "Which?", {"input": "text", "target": "label"}),
        ([{"input": "x", "target": "a"}], "Which?", {"input": None, "target": None}),
        ([{"sentence": "x", "answer": "a"}], "Which?", {"input": "sentence", "target": "answer"}),
        ([{"ticket": "x", "team": "a"}], "To: {{ ticket }}", {"input": None, "target": "team"}),
        ([{"a b": "x", "id": 1, "label": "a"}], 'To: {{ row["a b"] }}', {"input": None, "target": "label"}),
    ],
)
def test_columns_are_found_where_only_one_is_possible(
    rows: list[dict[str, Any]], prompt: str, expected: dict[str, str | None], tmp_path: Path
) -> None:
    task = configured(tmp_path, data=rows, prompt=prompt).tasks[0]
    fields = task.fields.model_dump() if task.fields else {"input": None, "target": None}
    assert {name: fields[name] for name in expected} == expected
    assert task.position == ("template" if "{{" in prompt else "question_end")


def test_a_file_tells_its_columns_too(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("review,label\ngood,a\nbad,b\n")
    task = configured(tmp_path, data=tmp_path / "rows.csv").tasks[0]
    assert task.fields is not None
    assert (task.fields.input, task.fields.target) == ("review", "label")


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("a-model", {"kind": "openai", "model": "a-model"}),
        ("embedded", {"kind": "embedded"}),
        ({"model": "b", "max_concurrency": 3}, {"kind": "openai", "model": "b", "max_concurrency": 3}),
        (
            gpo.Endpoint("http://127.0.0.1:9/v1", model="c", api_key_env="KEY"),
            {"base_url": "http://127.0.0.1:9/v1", "model": "c", "api_key_env": "KEY"},
        ),
        (Client(), {"kind": "function", "function": "__main__:Client"}),
    ],
)
def test_a_model_is_a_name_an_endpoint_a_section_or_a_function(
    model: Any, expected: dict[str, Any], tmp_path: Path
) -> None:
    config = configured(tmp_path, task_model=model)
    for role in (config.models.task, config.models.optimizer):
        assert {name: role.model_dump()[name] for name in expected} == expected


def test_a_function_of_a_module_keeps_its_name_and_others_get_one(tmp_path: Path) -> None:
    def local(answer: str, example: gpo.Example) -> float:
        return 1.0

    for function, name in (
        (json.dumps, "json:dumps"),
        (local, "__main__:test_a_function_of_a_module_keeps_its_name_and_others_get_one_local"),
        (lambda answer, example: 1.0, "__main__:test_a_function_of_a_module_keeps_its_name_and_others_get_one_lambda"),
    ):
        arguments = Arguments({"metric": function, "task_model": "m", "data": ROWS, "name": "task", "seed": 0})
        config = arguments.configuration(Folder.at(str(tmp_path)))
        assert config.tasks[0].answer.metric == name
        assert arguments.functions == {name: function}


def test_two_lambdas_have_two_names(tmp_path: Path) -> None:
    first, second = (lambda messages: "a"), (lambda messages: "b")
    arguments = Arguments(
        {"task_model": first, "optimizer_model": second, "data": ROWS, "name": "task", "seed": 0, "metric": weighted}
    )
    arguments.configuration(Folder.at(str(tmp_path)))
    assert list(arguments.functions.values()) == [weighted, first, second]


def test_options_reach_the_task_the_search_and_other_sections(tmp_path: Path) -> None:
    config = configured(
        tmp_path,
        seed=[1, 2],
        steps=4,
        budget={"calls": 9},
        goal="Route tickets.",
        must_keep=["JSON"],
        prompt="Answer in JSON.",
        metric={"kind": "judge", "rubric": "Polite?"},
        options={"forbid": ["please"], "optimizer": {"candidates": 2}, "evaluation": {"val_size": 3}},
    )
    task = config.tasks[0]
    assert (config.run.seeds, config.optimizer.steps, config.optimizer.candidates) == ((1, 2), 4, 2)
    assert (config.budget.calls, config.evaluation.val_size) == (9, 3)
    assert (task.goal, task.must_keep, task.forbid) == ("Route tickets.", ("JSON",), ("please",))
    assert (task.answer.kind, task.answer.rubric) == ("judge", "Polite?")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task_model": None}, "task_model: is missing"),
        ({"data": None}, "train: is missing; pass train, val and test, or data"),
        ({"train": ROWS}, "train: is set as well as data"),
        ({"data": []}, "data: holds no example"),
        ({"data": {"input": "x"}}, "data: a dictionary of columns cannot be used as examples; pass a list"),
        ({"split": [0.5, 0.5]}, "split: [0.5, 0.5] is not three sizes"),
        ({"fields": ["text"]}, "fields: a list does not say which column is which"),
        ({"data": [{"a": "x", "b": "y", "c": "z"}]}, "fields.input: none of the columns a, b, c is surely the input"),
        (
            {"options": {"candidates": 3}},
            "candidates: is not an argument; it is an option of a section: pass optimizer=",
        ),
        ({"data": 3}, "data: a int cannot be used as examples"),
        ({"data": ["x"]}, "data: row 1 is a str, not a dictionary"),
        ({"task_model": 3}, "task_model: a int is not a model"),
        ({"steps": -1}, "steps: -1 cannot be used; use a value of at least 0"),
        ({"seed": "x"}, "seed"),
        ({"metric": "lable"}, "metric.kind: 'lable' cannot be used"),
        ({"max_words": 0}, "max_words: 0 cannot be used"),
        (
            {"task_model": {"model": "m", "max_concurency": 3}},
            "task_model.max_concurency: is not an option; did you mean",
        ),
        ({"options": {"optimiser": {}}}, "optimiser: is not an argument; did you mean 'optimizer'"),
        ({"options": {"models": {}}}, "models: is not an argument"),
        ({"budget": {"tokens": 5}, "task_model": weighted}, "budget.tokens: is set, but the tokens of a model of kind"),
    ],
)
def test_errors_name_the_argument(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        configured(tmp_path, **values)
    assert str(error.value).startswith(message)


def test_a_key_is_never_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        configured(tmp_path, task_model=gpo.Endpoint(model="m", api_key="sk-canary"))
    assert str(error.value).startswith("task_model.api_key: is not an option; did you mean 'api_key_")
    assert "canary" not in str(error.value)
    assert "canary" not in repr(gpo.Endpoint(model="m", api_key="sk-canary"))


def test_examples_as_objects_need_a_local_folder() -> None:
    arguments = Arguments({"task_model": "m", "data": ROWS, "name": "task", "seed": 0})
    with pytest.raises(ConfigError, match=r"^data: examples as objects need a local run_dir, not 'memory://runs'"):
        arguments.configuration(Folder.at("memory://runs"))


def test_a_run_that_is_there_keeps_its_examples(tmp_path: Path) -> None:
    configured(tmp_path)
    folder, other = (
        Folder.at(str(tmp_path)),
        Arguments({"task_model": "m", "data": ROWS[1:], "name": "task", "seed": 0}),
    )
    other.configuration(folder)
    with pytest.raises(ConfigError, match=r"are not those that the run in .* began with"):
        other.save_rows(folder, is_new=False)


def test_an_invalid_placeholder_is_reported_with_the_prompt(tmp_path: Path) -> None:
    check: Callable[[], None] = Template("{{ a b }}", "prompt").check
    with pytest.raises(ConfigError):
        check()
    with pytest.raises(ConfigError, match=r"^prompt"):
        configured(tmp_path, prompt="Say {{ a b }}.")
