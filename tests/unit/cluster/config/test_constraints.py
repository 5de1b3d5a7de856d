"""Options about new prompts: goal, constraints, and meta-prompts of a user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.config.loading import dump, validate
from cluster.config.run import RunConfig
from cluster.session.models import build_tasks
from gpo.errors import ConfigError
from tests.paths import TRIAGE

MODEL = {"base_url": "http://127.0.0.1:9/v1", "model": "a-model"}
OWN = "Improve {{ prompt }}. Write it between <START> and <END>."


def config(folder: Path, meta_prompt: dict[str, Any] | None = None, **options: Any) -> RunConfig:
    task = {
        "name": "triage",
        "data": {split: str(TRIAGE / f"{split}.jsonl") for split in ("train", "val", "test")},
        "fields": {"input": "text", "target": "label"},
        "prompt": "Sort the ticket. Reply with JSON.",
        **options,
    }
    document = {"models": {"task": MODEL, "optimizer": MODEL}, "tasks": [task]}
    return validate({**document, "optimizer": {"meta_prompt": meta_prompt or {}}}, base_dir=folder)


def test_goal_and_constraints_reach_the_task(tmp_path: Path) -> None:
    options = {"goal": "Route.", "must_keep": ["JSON"], "max_words": 9, "forbid": ["please"], "language": "en"}
    (task,) = build_tasks(config(tmp_path, **options))
    assert task.goal == "Route."
    assert task.guards_examples
    constraints = task.constraints
    assert (constraints.must_keep, constraints.max_words) == (("JSON",), 9)
    assert (constraints.forbid, constraints.language) == (("please",), "en")
    (task,) = build_tasks(config(tmp_path, allow_copied_examples=True))
    assert not task.guards_examples


@pytest.mark.parametrize(
    ("options", "field", "problem"),
    [
        ({"must_keep": ["XML"]}, "must_keep", "does not contain 'XML'"),
        ({"max_words": 3}, "max_words", "has 6 words"),
        ({"forbid": ["ticket"]}, "forbid", "contains 'ticket'"),
        ({"language": "fr"}, "language", "another language"),
    ],
)
def test_an_initial_prompt_that_breaks_a_constraint_is_refused(
    options: dict[str, Any], field: str, problem: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        build_tasks(config(tmp_path, **options))
    assert caught.value.field == f"tasks[0].{field}"


def test_a_goal_that_breaks_a_constraint_is_named_as_the_initial_prompt(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the goal, which is the initial prompt, does not contain 'JSON'"):
        build_tasks(config(tmp_path, must_keep=["JSON"], goal="Route the ticket.", prompt=None))


def test_a_given_prompt_that_breaks_a_constraint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="prompt 2 does not contain 'JSON'"):
        build_tasks(config(tmp_path, must_keep=["JSON"], prompt=["Reply with JSON.", "Sort."]))


def test_a_meta_prompt_file_is_read_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_text(OWN)
    made = config(tmp_path, {"template": "own.txt", "extra": "Be brief."})
    path.unlink()
    again = validate(yaml.safe_load(dump(made)), base_dir=tmp_path)
    assert again.meta_prompt.text == OWN
    assert again == made


def test_another_meta_prompt_file_replaces_the_kept_text(tmp_path: Path) -> None:
    (tmp_path / "new.txt").write_text(f"New. {OWN}")
    assert config(tmp_path, {"template": "new.txt", "text": OWN}).meta_prompt.text == f"New. {OWN}"


@pytest.mark.parametrize(
    ("meta_prompt", "problem"),
    [
        ({"template": "missing.txt"}, "does not exist"),
        ({"template": "own.txt", "kind": "full"}, "as well as template"),
        ({"template": "bad.txt"}, "does not show the prompt"),
    ],
)
def test_a_meta_prompt_that_cannot_work_is_refused(meta_prompt: dict[str, Any], problem: str, tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text(OWN)
    (tmp_path / "bad.txt").write_text("Write it between <START> and <END>.")
    with pytest.raises(ConfigError, match=problem) as caught:
        config(tmp_path, meta_prompt)
    assert caught.value.field.startswith("optimizer.meta_prompt")


def test_a_meta_prompt_must_show_constraints(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text(OWN)
    with pytest.raises(ConfigError, match=r"constraints of task triage; write \{\{ rules"):
        config(tmp_path, {"template": "own.txt"}, must_keep=["JSON"])
