"""Tasks whose prompt is a template (``position: template``)."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from cluster.config.loading import dump, validate
from cluster.config.run import RunConfig
from cluster.evaluating.plan import planned
from cluster.session.models import build_tasks
from gpo.data.task import Split, Task
from gpo.errors import ConfigError

MODEL = {"base_url": "http://127.0.0.1:9/v1", "model": "a-model", "sampling": {"max_tokens": 10}}
PROMPT = {"system": " You sort reviews. ", "user": "Product: {{ product }}\nReview: {{ row['The review'] }}\nLabel?"}
COLUMNS = ("id", "product", "The review", "label")


def rows(split: str, count: int) -> list[dict[str, str]]:
    return [
        dict(zip(COLUMNS, (f"{n}", f"{split} tool {n}", f"It broke {n} times.", "ab"[n % 2]), strict=True))
        for n in range(count)
    ]


def write(path: Path, content: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".jsonl":
            file.writelines(json.dumps(row) + "\n" for row in content)
            return
        writer = csv.DictWriter(file, COLUMNS, delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(content)


def config(folder: Path, suffix: str = "csv", **task: Any) -> RunConfig:
    for split in Split:
        write(folder / f"{split}.{suffix}", rows(split, 6))
    data = {str(split): f"{split}.{suffix}" for split in Split}
    given = {"name": "t", "data": data, "fields": {"target": "label"}, "prompt": PROMPT, "position": "template", **task}
    return validate({"models": {"task": MODEL, "optimizer": MODEL}, "tasks": [given]}, base_dir=folder)


def built(config: RunConfig) -> Task:
    (task,) = build_tasks(config)
    return task


def asked(task: Task, split: Split = Split.VAL, index: int = 0) -> list[tuple[str, str]]:
    messages = task.answer_format.messages(task.initial, task.examples[split][index])
    return [(message["role"], message["content"]) for message in messages]


FILLED = [("system", "You sort reviews."), ("user", "Product: val tool 0\nReview: It broke 0 times.\nLabel?")]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_placeholders_are_columns_of_any_file(suffix: str, tmp_path: Path) -> None:
    task = built(config(tmp_path, suffix))
    assert asked(task) == FILLED
    assert task.initial.text.startswith("[[system]]\nYou sort reviews.\n\n[[user]]\nProduct:")
    assert task.examples[Split.VAL][0].input == "product: val tool 0\nThe review: It broke 0 times."


def test_columns_that_no_placeholder_names_are_not_kept(tmp_path: Path) -> None:
    (example, *_) = built(config(tmp_path)).examples[Split.VAL]
    assert dict(example.placeholder_texts).keys() == {"{{ product }}", "{{ row['The review'] }}"}


def test_one_file_is_divided_by_the_columns_of_the_placeholders(tmp_path: Path) -> None:
    write(tmp_path / "all.csv", rows("all", 10) * 2)
    task = built(config(tmp_path, data={"file": "all.csv", "split": {"train": 2, "val": 4, "test": 4}}))
    assert [len(task.examples[split]) for split in Split] == [4, 8, 8]


def test_a_data_set_of_the_hub_has_columns_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Read when the package is imported; another test may have done that already.
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "home")
    (tmp_path / "set").mkdir()
    for name in ("train", "test"):
        write(tmp_path / "set" / f"{name}.csv", rows(name, 6))
    data = {"huggingface": "./set", "train": "train[:3]", "val": "train[3:]", "test": "test"}
    task = built(config(tmp_path, data=data))
    assert asked(task)[1] == ("user", "Product: train tool 3\nReview: It broke 3 times.\nLabel?")


def test_the_text_form_is_the_same_prompt(tmp_path: Path) -> None:
    text = f"[[system]] {PROMPT['system']} [[user]]\n{PROMPT['user']}"
    assert asked(built(config(tmp_path, prompt=text))) == FILLED


def test_the_dump_is_the_same_configuration(tmp_path: Path) -> None:
    made = config(tmp_path)
    assert validate(json.loads(json.dumps(made.model_dump(mode="json"))), base_dir=Path("/elsewhere")) == made
    assert "system: You sort reviews." in dump(made)


def test_a_plan_counts_the_texts_that_are_filled_in(tmp_path: Path) -> None:
    made = config(tmp_path, answer={"kind": "label"})
    (plan,) = planned(made, build_tasks(made))
    calls, tokens = plan.by_role["task"].calls, plan.by_role["task"].prompt_tokens
    assert tokens == pytest.approx(calls * sum(len(content) for _, content in FILLED) / 4, rel=0.05)


@pytest.mark.parametrize(
    ("task", "field", "said"),
    [
        ({"prompt": "Sort it."}, "tasks[0].prompt", "contains no placeholder of a column, such as {{ input }}"),
        ({"prompt": "{% if a %}{{ a }}{% endif %}"}, "tasks[0].prompt", "contains a statement {% … %}"),
        ({"prompt": "{{ product }} {# no #}"}, "tasks[0].prompt", "contains a comment"),
        ({"prompt": "{{ product | nothing }}"}, "tasks[0].prompt", "{{ product | nothing }} is not a valid template"),
        ({"prompt": {**PROMPT, "system": "[[user]]"}}, "tasks[0].prompt", "has the headings"),
        ({"prompt": {"user": "{{ product }}"}}, "tasks[0].prompt.system", "is missing"),
        ({"prompt": {**PROMPT, "assistant": "x"}}, "tasks[0].prompt.assistant", "is not an option"),
        ({"position": "system"}, "tasks[0].prompt", "has two messages, which needs position: template"),
        ({"question_marks": True}, "tasks[0].question_marks", "does not apply to a template"),
        (
            {"data": {"benchmark": "gsm8k", "root": "."}, "fields": None},
            "tasks[0].position",
            "template does not apply to a benchmark",
        ),
    ],
)
def test_a_prompt_that_is_no_template_is_refused(task: dict[str, Any], field: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config(tmp_path, **task)
    assert caught.value.field == field
    assert said in str(caught.value)


def test_placeholders_that_another_position_does_not_fill_in_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    built(
        config(
            tmp_path, prompt="Sort {{ product }}.", position="system", fields={"input": "product", "target": "label"}
        )
    )
    assert "tasks[0].prompt contains {{ product }}, which only position: template fills in" in caplog.text


def test_an_unknown_column_is_named_with_the_columns(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        built(config(tmp_path, prompt="{{ prodct }}"))
    assert caught.value.field == "tasks[0].data.train (train.csv:2)"
    assert "'prodct' is undefined" in str(caught.value)
    assert "the columns are: id, product, The review, label" in str(caught.value)
    assert "correct tasks[0].prompt" in caught.value.remedy


def test_several_templates_can_be_given(tmp_path: Path) -> None:
    texts = ["{{ product }}: {{ id }}. Label?", "Label {{ id }}, {{product}}!"]
    (tmp_path / "a.json").write_text(json.dumps(texts))
    for prompt in (texts, {"file": "a.json"}):
        task = built(config(tmp_path, prompt=prompt))
        assert [one.text for one in (task.initial, *task.given)] == texts
        assert dict(task.examples[Split.VAL][0].placeholder_texts).keys() == {"{{ product }}", "{{ id }}"}


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["{{ product }}?", "Label {{ produce }}."], "prompt 2 contains {{ product }} not at all"),
        (["{{ product }}?", "{{ product }}!", "{% if a %}"], "prompt 3 contains a statement"),
        (["Which?", "{{ product }}?"], "contains no placeholder of a column"),
    ],
)
def test_given_prompts_have_the_placeholders_of_the_first(texts: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(texts))
    for prompt in (texts, {"file": "a.json"}):
        with pytest.raises(ConfigError) as caught:
            built(config(tmp_path, prompt=prompt))
        assert caught.value.field == "tasks[0].prompt"
        assert said in str(caught.value)
