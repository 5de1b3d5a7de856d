"""Tasks with a program (``program``, ``prompts``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.config.loading import dump, validate
from cluster.config.run import RunConfig
from cluster.evaluating.plan import plan_table, planned
from cluster.session.models import build_tasks
from gpo.data.task import Split, Task
from gpo.errors import ConfigError
from gpo.evaluation.answer_format import Position
from gpo.prompt import Prompt, joined_parts

MODEL = {"base_url": "http://127.0.0.1:9/v1", "model": "a-model", "sampling": {"max_tokens": 10}}
PROMPTS = {"plan": " Write a query. ", "answer": "Answer in one word."}


def config(folder: Path, **task: Any) -> RunConfig:
    (folder / "qa.py").write_text("async def answer(prompts, example, client):\n    return 'x'\nname = 3\n")
    for split in Split:
        rows = [{"question": f"{split} {n}", "context": f"about {n}", "label": "ab"[n % 2]} for n in range(4)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {
        "name": "t",
        "data": {str(split): f"{split}.jsonl" for split in Split},
        "fields": {"target": "label"},
        "program": "qa:answer",
        **task,
    }
    return validate({"models": {"task": MODEL, "optimizer": MODEL}, "tasks": [given]}, base_dir=folder)


def built(made: RunConfig) -> Task:
    (task,) = build_tasks(made)
    return task


def test_a_program_with_several_prompts(tmp_path: Path) -> None:
    task = built(config(tmp_path, prompts=PROMPTS))
    assert task.program is not None
    assert (task.parts, task.program.names, task.program.hidden) == (("plan", "answer"), ("plan", "answer"), ("label",))
    assert task.initial.text == "[[plan]]\nWrite a query.\n\n[[answer]]\nAnswer in one word."
    assert task.answer_format.position is Position.PROGRAM
    assert not task.has_first_prompts
    assert task.program.example(task.examples[Split.VAL][0]) == {"question": "val 0", "context": "about 0"}
    assert task.program.max_seconds == 120
    assert task.prompt_problem(Prompt("Think.")) == "has the parts none, not plan, answer"
    assert task.prompt_problem(task.initial) is None


@pytest.mark.parametrize(
    ("task", "names", "initial"),
    [
        ({"prompt": "Think."}, ("prompt",), "Think."),
        ({"prompts": {"answer": "Think."}}, ("answer",), "Think."),
        ({"goal": "Answer.", "prompts": None}, ("prompt",), "Answer."),
    ],
)
def test_a_single_prompt_has_no_heading(
    task: dict[str, Any], names: tuple[str, ...], initial: str, tmp_path: Path
) -> None:
    made = built(config(tmp_path, **task))
    assert made.program is not None
    assert (made.program.names, made.parts, made.initial.text) == (names, (), initial)
    assert made.program.prompts(Prompt("[[answer]]\nNew.")) == {names[0]: "[[answer]]\nNew."}


def test_every_column_of_a_target_s_template_is_hidden(tmp_path: Path) -> None:
    fields = {"target_template": "{{ label }} {{ context }}"}
    task = built(config(tmp_path, prompts=PROMPTS, fields=fields, answer={"kind": "exact"}))
    assert task.program is not None
    assert task.program.example(task.examples[Split.VAL][0]) == {"question": "val 0"}


def test_the_dump_is_the_same_configuration(tmp_path: Path) -> None:
    made = config(tmp_path, prompts=PROMPTS, program={"function": "qa:answer", "max_seconds": 3})
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "config.yaml").write_text(dump(made))
    import yaml

    again = validate(yaml.safe_load(dump(made)), base_dir=elsewhere)
    assert again == made
    assert built(again).program == built(made).program
    assert list(again.tasks[0].prompts or ()) == ["plan", "answer"]


@pytest.mark.parametrize(
    ("task", "field", "said"),
    [
        ({"program": None, "prompts": PROMPTS}, "prompts", "needs a program that uses them"),
        ({"program": None, "prompt": "x", "position": "program"}, "position", "is that of a program"),
        ({"prompt": "x", "prompts": PROMPTS}, "prompt", "is set as well as prompts"),
        ({"prompts": PROMPTS, "position": "system"}, "position", "does not apply to a program"),
        ({"prompts": PROMPTS, "question_marks": True}, "question_marks", "does not apply to a program"),
        ({"prompts": PROMPTS, "shots": 2}, "shots", "does not apply to a program"),
        ({"prompts": PROMPTS, "answer": {"rounds": 2}}, "answer.rounds", "does not apply to a program"),
        ({"prompts": {"a b": "x"}}, "prompts.a b", "'a b' is not a name; use at most 40 letters"),
        ({"prompts": {}}, "prompts", "at least 1"),
        ({"prompts": {"plan": " ", "answer": "x"}}, "prompts.plan", "write at least one character"),
        ({"prompts": {"plan": "x\n[[answer]]", "answer": "x"}}, "prompts", "holds a text with a line such as"),
        ({"program": "qa.py"}, "program", "is a file; write module:function"),
        ({"program": "qa"}, "program", "write it as module:function"),
        ({"program": "qa:missing"}, "program.function", "'missing' is not defined in the module 'qa'"),
        ({"program": "qa:name"}, "program.function", "'name' is not a function"),
        ({"program": "no_such_module:f"}, "program.function", "there is no module"),
        ({"program": {"function": "qa:answer", "max_seconds": 0}}, "program.max_seconds", "use a value above 0"),
        ({"prompts": PROMPTS, "max_words": 5}, "max_words", "has 7 words, more than 5"),
    ],
)
def test_a_mistake_is_named_with_its_option(task: dict[str, Any], field: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        built(config(tmp_path, **task))
    assert error.value.field.startswith(f"tasks[0].{field}")
    assert said in str(error.value)


def test_a_plan_says_what_it_assumes_about_programs(tmp_path: Path) -> None:
    for task, assumed in (
        ({"prompts": PROMPTS}, True),
        ({"program": None, "fields": {"input": "question", "target": "label"}}, False),
    ):
        made = config(tmp_path, **task)
        caption = str(plan_table(made, planned(made, build_tasks(made))).caption)
        assert ("one call for each example is counted for: t." in caption) == assumed


def test_a_program_in_processes(tmp_path: Path) -> None:
    section = {"function": "qa:answer", "workers": "process", "processes": 3, "max_memory_mb": 500}
    program = built(config(tmp_path, program=section)).program
    assert program is not None
    assert (program.processes, program.max_memory_mb) == (3, 500)
    other = built(config(tmp_path, program={"function": "qa:answer", "processes": 3})).program
    assert other is not None
    assert other.processes == 0


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"function": "qa:answer", "max_memory_mb": 500}, "max_memory_mb.* bounds processes; set workers: process"),
        ({"function": "__main__:answer", "workers": "process"}, "function.* is known only in this process; write it"),
    ],
)
def test_processes_that_do_not_fit(section: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        config(tmp_path, program=section)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ({"program": {"gepa": "json:dumps"}}, "json:dumps is a function, not an object with the methods of gepa"),
        ({"program": {"gepa": "qa:name"}}, "qa:name is an int, not an object"),
        ({"program": {"gepa": "missing_module:adapter"}}, "there is no module 'missing_module'"),
        ({"program": {"gepa": "qa:name"}, "answer": {"kind": "exact"}}, "answer.* does not apply to a gepa adapter"),
    ],
)
def test_what_is_no_gepa_adapter(task: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        built(config(tmp_path, **task))


def test_a_gepa_adapter_sees_the_target_and_runs_in_processes(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "class A:\n    def evaluate(self, batch, candidate, capture_traces): ...\na = A()\n"
    )
    program = built(config(tmp_path, program={"gepa": "own:a"}, prompts=PROMPTS)).program
    assert program is not None
    assert (program.processes, program.gateway, program.hidden) == (8, True, ())
    assert program.names == ("plan", "answer")


def test_constraints_of_single_prompts(tmp_path: Path) -> None:
    of_parts = {"plan": {"must_keep": ["query"], "max_words": 4}, "answer": {"forbid": ["explain"]}}
    constraints = built(config(tmp_path, prompts=PROMPTS, constraints=of_parts, max_words=20)).constraints

    def broken(plan: str, answer: str) -> tuple[str, str] | None:
        return constraints.broken(Prompt(joined_parts({"plan": plan, "answer": answer})))

    assert broken("A query of one line.", "Answer.") == ("max_words", "has 5 words, more than 4, in [[plan]]")
    assert broken("Look it up.", "Send a query.") == ("must_keep", "does not contain 'query', in [[plan]]")
    assert broken("A query.", "Explain it.") == ("forbid", "contains 'explain', in [[answer]]")
    assert broken("Explain a query.", "Answer.") is None
    assert broken("A query.", "Answer. " * 20) == ("max_words", "has 22 words, more than 20")
    assert list(constraints.of("plan").sentences()) == [
        'It must contain, word for word: "query".',
        "It must have at most 4 words.",
    ]
    only = built(config(tmp_path, prompts={"plan": "A query."}, constraints={"plan": of_parts["plan"]})).constraints
    assert only.broken(Prompt("Look it up.")) == ("must_keep", "does not contain 'query'")


@pytest.mark.parametrize(
    ("constraints", "words"),
    [
        ({"plan": {"max_words": 2}}, "constraints.plan.max_words: .*the initial prompt has 3 words, more than 2"),
        ({"other": {"max_words": 2}}, "constraints: names 'other', which is not in prompts"),
        ({"plan": {"words": 2}}, "constraints.plan.words"),
    ],
)
def test_constraints_that_do_not_fit(constraints: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        built(config(tmp_path, prompts=PROMPTS, constraints=constraints))
