from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpo.data.example import Example
from gpo.data.files import Fields, read_examples
from gpo.data.template import Template
from gpo.errors import ConfigError


def template(source: str) -> Template:
    return Template(source, "tasks[0].fields.template")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ context }}\n\nQ: {{ question }}", "<It's> 5 & 6.\n\nQ: How many?"),
        ("{% for choice in choices %}({{ 'AB'[loop.index0] }}) {{ choice }}\n{% endfor %}", "(A) one\n(B) two\n"),
        ('{{ row["Two words"] }}', "2"),
        ("{{ question | upper }}{% if hint is defined %} {{ hint }}{% endif %}", "HOW MANY?"),
        ("{{ '{{' }} {{ nested.inner }}", "{{ deep"),
    ],
)
def test_columns_are_filled_in_as_plain_text(source: str, text: str) -> None:
    row = {
        "context": "<It's> 5 & 6.",
        "question": "How many?",
        "choices": ["one", "two"],
        "Two words": 2,
        "nested": {"inner": "deep"},
    }
    assert template(source).rendered(row, "here") == text


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{{ context }}", r"'context' is undefined.*; the columns are: question, empty, null"),
        ("{{ question }} {{ null }}", "a column in it is null"),
        ("{{ empty }} \n", "gives only white space"),
        ("{{ question + 1 }}", "cannot be filled in"),
        ("{{ question[99] }}", "cannot be filled in"),
        ("{{ question.__class__.__mro__ }}", "unsafe"),
        ("{{ ().__class__.__base__.__subclasses__() }}", "cannot be filled in"),
        ("{% include 'file' %}", "cannot be filled in"),
        ("{{ half }}", "a lone surrogate"),
        ("{{ question.upper }}", "contains a function"),
        ("{{ [question] | map('upper') }}", "contains a generator; end it with"),
        ("{{ [question] | batch(2) }}", "contains a generator"),
        ("{{ range(3) }}", "'range' is undefined"),
        ("{{ lipsum() }}", "'lipsum' is undefined"),
    ],
)
def test_a_template_with_an_unknown_column_is_refused(source: str, problem: str) -> None:
    row = {"question": "How many?", "empty": "", "null": None, "half": "\ud83d"}
    with pytest.raises(ConfigError, match=problem) as caught:
        template(source).rendered(row, "here")
    assert caught.value.field == "here"
    assert caught.value.remedy


def test_a_template_with_an_error_names_its_line() -> None:
    with pytest.raises(ConfigError, match=r"is not a valid template \(line 2") as caught:
        template("{{ question }}\n{{ context }").check()
    assert caught.value.field == "tasks[0].fields.template"


@pytest.mark.parametrize(
    "source",
    [
        "{{ " + "(" * 500 + "1" + ")" * 500 + " }}",
        "{{ " + "1" * 5000 + " }}",
        "{{ " + "not " * 3000 + "a }}",
        "{{ " + "a." * 3000 + "a }}",
        "{% for a in b %}" * 150 + "{% endfor %}" * 150,
        "{% set a %}" * 300 + "{% endset %}" * 300,
        "{{ a | random }}",
    ],
    ids=["brackets", "digits", "nots", "dots", "loops", "blocks", "random"],
)
def test_a_template_that_cannot_be_compiled_is_explained(source: str) -> None:
    with pytest.raises(ConfigError, match="is not a valid template") as caught:
        template(source).check()
    assert len(str(caught.value)) < 400
    assert caught.value.remedy


@pytest.mark.parametrize(("source", "text"), [("{{ row.a }}{{ row['row'] }}", "12"), ("{{ row.row }}", "2")])
def test_row_is_the_whole_row_even_with_a_column_of_that_name(source: str, text: str) -> None:
    assert template(source).rendered({"a": "1", "row": "2"}, "here") == text


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_files_are_read_with_a_template(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"val.{suffix}"
    rows: list[dict[str, Any]] = [{"a": "one", "b": "two", "label": "x"}, {"a": "three", "b": "four", "label": "y"}]
    lines = {
        "jsonl": [json.dumps(row) for row in rows],
        "csv": ["a,b,label", *(",".join(row.values()) for row in rows)],
    }
    path.write_text("\n".join(lines[suffix]), encoding="utf-8")
    assert read_examples(path, Fields(template("{{ a }}-{{ b }}"), "label"), where="data.val") == (
        Example("one-two", ("x",)),
        Example("three-four", ("y",)),
    )
    with pytest.raises(ConfigError) as caught:
        read_examples(path, Fields(template("{{ a }}-{{ c }}"), "label"), where="data.val")
    assert caught.value.field == f"data.val (val.{suffix}:{1 if suffix == 'jsonl' else 2})"
