"""Option ``tasks[].prompt``: a text, a list of texts, a file, or the prompts of an earlier run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.config.loading import dump, load_config, validate
from cluster.config.run import RunConfig
from cluster.session.models import build_tasks
from gpo.data.task import Task
from gpo.errors import ConfigError
from tests.configs import refused
from tests.paths import TRIAGE

MODEL = {"base_url": "http://127.0.0.1:9/v1", "model": "a-model"}


def config(folder: Path, prompt: Any, **sections: Any) -> RunConfig:
    task = {
        "name": "triage",
        "data": {split: str(TRIAGE / f"{split}.jsonl") for split in ("train", "val", "test")},
        "fields": {"input": "text", "target": "label"},
        "prompt": prompt,
    }
    document = {"models": {"task": MODEL, "optimizer": MODEL}, "tasks": [task], **sections}
    return validate(document, base_dir=folder)


def texts(made: RunConfig) -> list[str]:
    (task,) = build_tasks(made)
    return [prompt.text for prompt in (task.initial, *task.given)]


def refusal(folder: Path, prompt: Any) -> ConfigError:
    return refused(lambda: build_tasks(config(folder, prompt)))


def test_a_text_is_the_initial_prompt(tmp_path: Path) -> None:
    made = config(tmp_path, " Think. ")
    assert texts(made) == ["Think."]
    (task,) = build_tasks(made)
    assert made.num_steps(task) == made.num_updates(task) == 12


def test_a_list_gives_prompts_besides_the_initial_one(tmp_path: Path) -> None:
    made = config(tmp_path, ["Think.", " Sort the ticket.\n\nBe\x1b brief.", "Think.", "Answer."])
    assert texts(made) == ["Think.", "Sort the ticket.\n\nBe brief.", "Answer."]
    (task,) = build_tasks(made)
    assert (made.num_steps(task), made.num_updates(task)) == (13, 12)


def test_repeats_of_the_initial_prompt_are_no_given_prompts(tmp_path: Path) -> None:
    made = config(tmp_path, ["Think.", "Think.\x07"])
    (task,) = build_tasks(made)
    assert (task.given, made.num_steps(task)) == ((), 12)


FILES = {
    "a.txt": "Think.\r\n\n  Sort the ticket.  \nThink.\nAnswer: yes, or no.\n",
    "a.jsonl": '{"prompt": "Think."}\n\n{"prompt": "Sort the ticket.", "note": 3}\n{"prompt": "Answer: yes, or no."}',
    "a.json": json.dumps([{"prompt": text} for text in ("Think.", "Sort the ticket.", "Answer: yes, or no.")]),
    "b.json": json.dumps(["Think.", "Sort the ticket.", "Answer: yes, or no."]),
    "a.csv": 'id,prompt\n1,Think.\n2,Sort the ticket.\n3,"Answer: yes, or no."\n',
    "a.tsv": "prompt\tid\nThink.\t1\nSort the ticket.\t2\nAnswer: yes, or no.\t3\n",
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_holds_prompts(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(FILES[name].encode())
    assert texts(config(tmp_path, {"file": name})) == ["Think.", "Sort the ticket.", "Answer: yes, or no."]


def test_a_prompt_of_several_lines_is_possible_in_json_lines(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": "Think.\n\nAnswer."}))
    assert texts(config(tmp_path, {"file": "a.jsonl"})) == ["Think.\n\nAnswer."]


def test_paths_are_relative_to_the_file_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "a.txt").write_text("Think.\nAnswer.\n")
    document = config(tmp_path, {"file": "a.txt"}).model_dump(mode="json")
    document["tasks"][0]["prompt"] = {"file": "a.txt"}
    (tmp_path / "below" / "base.yaml").write_text(yaml.safe_dump(document))
    (tmp_path / "top.yaml").write_text("extends: below/base.yaml")
    assert texts(load_config(tmp_path / "top.yaml")) == ["Think.", "Answer."]
    overridden = load_config(tmp_path / "top.yaml", ["tasks.0.prompt={file: below/a.txt}"])
    assert texts(overridden) == ["Think.", "Answer."]
    assert texts(load_config(tmp_path / "top.yaml", ["tasks.0.prompt=[One., Two.]"])) == ["One.", "Two."]


@pytest.mark.parametrize(
    ("name", "content", "field", "problem"),
    [
        ("a.txt", "Think.\n" + "word " * 1001, "tasks[0].prompt.file (a.txt:2)", "more than 1,000 words"),
        ("a.txt", "x" * 20_001, "tasks[0].prompt.file (a.txt:1)", "20,000 characters"),
        ("a.txt", "Think.\n\x07\n", "tasks[0].prompt.file (a.txt:2)", "the prompt is empty"),
        ("a.txt", "\n \n", "tasks[0].prompt.file", "contains no prompt"),
        ("a.txt", "T\0h\0", "tasks[0].prompt.file", "NUL"),
        ("a.jsonl", '{"prompt": "Think."}\n{"prompt": " "}', "tasks[0].prompt.file (a.jsonl:2)", "is empty"),
        ("a.jsonl", '{"text": "Think."}', "tasks[0].prompt.file (a.jsonl:1)", "there is no column 'prompt'"),
        ("a.jsonl", '{"prompt": {"a": 1}}', "tasks[0].prompt.file (a.jsonl:1)", "contains an object"),
        ("a.jsonl", '{"prompt": ["Think.", "Go."]}', "tasks[0].prompt.file (a.jsonl:1)", "is a list"),
        ("a.jsonl", '{"prompt": "Th', "tasks[0].prompt.file (a.jsonl:1)", "not valid JSON"),
        ("a.json", '{"prompt": "Think."}', "tasks[0].prompt.file", "is not a list of texts or objects"),
        ("a.json", '["Think.", 3]', "tasks[0].prompt.file", "is not a list of texts or objects"),
        ("a.json", '["Think.", ""]', "tasks[0].prompt.file (a.json:2)", "is empty"),
        ("a.json", "[" * 100_000, "tasks[0].prompt.file", "is not valid JSON"),
        ("a.json", "[]", "tasks[0].prompt.file", "contains no prompt"),
        ("a.csv", "text\nThink.\n", "tasks[0].prompt.file (a.csv:2)", "there is no column 'prompt'"),
        ("a.md", "Think.", "tasks[0].prompt.file", "is none of .txt, .jsonl"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(
    name: str, content: str, field: str, problem: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    error = refusal(tmp_path, {"file": name})
    assert error.field == field
    assert problem in error.problem
    assert error.problem.startswith("task triage: ")


@pytest.mark.parametrize(
    ("prompt", "field", "problem"),
    [
        ([], "tasks[0].prompt", "cannot be used"),
        (["Think.", " \x00"], "tasks[0].prompt[1]", "the prompt is empty"),
        (["Think.", "word " * 1001], "tasks[0].prompt[1]", "more than 1,000 words"),
        (["Think.", 3], "tasks[0].prompt[1]", "cannot be used"),
        (3, "tasks[0].prompt", "cannot be used"),
        ("", "tasks[0].prompt", "cannot be used"),
        ({}, "tasks[0].prompt", "is no prompt"),
        ({"path": "a.txt"}, "tasks[0].prompt", "is no prompt"),
        ({"file": "a.txt", "most": 3}, "tasks[0].prompt.most", "is not an option"),
        ({"file": 3}, "tasks[0].prompt.file", "is not a valid path"),
        ({"run": "a", "most": 0}, "tasks[0].prompt.most", "cannot be used"),
        ({"run": "s3://me:secret@host/run"}, "tasks[0].prompt.run", "holds a user name or password"),
    ],
)
def test_what_is_no_prompt_is_refused(prompt: Any, field: str, problem: str, tmp_path: Path) -> None:
    error = refusal(tmp_path, prompt)
    assert error.field == field
    assert problem in error.problem
    assert "secret" not in str(error)


def test_a_configuration_with_its_prompts_needs_no_file_any_more(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("Think.\nAnswer.\n")
    made = config(tmp_path, {"file": "a.txt"})
    complete = made.with_prompts(build_tasks(made))
    file.unlink()
    read_back = validate(yaml.safe_load(dump(complete)), base_dir=Path("/"))
    assert texts(read_back) == ["Think.", "Answer."]
    assert read_back == complete


def test_plain_prompts_are_left_alone(tmp_path: Path) -> None:
    for prompt in ("Think.", ["Think.", "Answer."]):
        made = config(tmp_path, prompt)
        tasks: list[Task] = build_tasks(made)
        assert made.with_prompts(tasks) == made


def with_goal(folder: Path, goal: str, **changes: Any) -> RunConfig:
    document = config(folder, "Think.").model_dump(mode="json")
    del document["tasks"][0]["prompt"]
    document["tasks"][0] |= {"goal": goal, **changes}
    return validate(document, base_dir=folder)


def test_without_a_prompt_the_goal_is_the_initial_one(tmp_path: Path) -> None:
    made = with_goal(tmp_path, " Sort support tickets. ")
    (task,) = build_tasks(made)
    assert (task.initial.text, task.goal, task.given) == ("Sort support tickets.", "Sort support tickets.", ())
    assert task.starts_from_goal
    assert (made.num_steps(task), made.num_updates(task)) == (13, 12)
    again = validate(yaml.safe_load(dump(made.with_prompts([task]))), base_dir=Path("/"))
    assert build_tasks(again) == [task]


@pytest.mark.parametrize("prompt", ["Think.", ["Think.", "Answer."]])
def test_with_a_prompt_no_first_prompts_are_written_from_the_goal(prompt: Any, tmp_path: Path) -> None:
    (task,) = build_tasks(with_goal(tmp_path, "Sort support tickets.", prompt=prompt))
    assert (task.initial.text, task.goal, task.starts_from_goal) == ("Think.", "Sort support tickets.", False)


def test_without_prompt_and_goal_there_is_a_default(tmp_path: Path) -> None:
    for absent in ({}, {"prompt": None}):
        document = config(tmp_path, "Think.").model_dump(mode="json")
        del document["tasks"][0]["prompt"]
        document["tasks"][0] |= absent
        made = validate(document, base_dir=tmp_path)
        assert made.tasks[0].prompt == "Let's think step by step."
        (task,) = build_tasks(made)
        assert not task.has_first_prompts


def test_an_empty_goal_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        with_goal(tmp_path, " ")
    assert caught.value.field == "tasks[0].goal"


def test_a_template_cannot_be_written_from_the_goal(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="contains no placeholder of a column") as caught:
        with_goal(tmp_path, "Sort support tickets.", position="template")
    assert caught.value.field == "tasks[0].prompt"
