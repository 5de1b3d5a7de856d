from __future__ import annotations

import json
import os
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpo.data.example import Example
from gpo.data.files import Fields, example_of
from gpo.data.task import Split, Task
from gpo.data.template import Template
from gpo.errors import ConfigError
from gpo.evaluation.answer_format import AnswerFormat, Position
from gpo.evaluation.metrics.text import ExactScorer
from gpo.evaluation.prompt_template import (
    form_problem,
    headings,
    in_messages,
    initial_problem,
    placeholders,
    template_problem,
    with_instruction,
)
from gpo.prompt import Prompt, edit_distance

EXAMPLES = int(os.environ.get("GPO_FUZZ_EXAMPLES", "20"))
TEXT = in_messages(
    'You sort tickets of {{ customer }}. Answer as {"desk": {"name": "…"}}.', 'Ticket: {{ row["The text"] }}\nDesk?'
)
INITIAL = Prompt(TEXT)
ROW = {"customer": "ACME", "The text": "Where is my parcel?", "desk": "shipping", "unused": "x"}


def fields(text: str, input_column: str | None = None) -> Fields:
    names = dict.fromkeys(placeholders(text))
    return Fields(input_column, "desk", tuple(Template(name, "tasks[0].prompt") for name in names))


def contents(text: str, example: Example, *shown: Example) -> list[tuple[str, str]]:
    asked = AnswerFormat(Position.TEMPLATE, demonstrations=shown).messages(Prompt(text), example)
    return [(message["role"], message["content"]) for message in asked]


def test_a_template_is_filled_in_with_the_columns_of_each_example() -> None:
    example = example_of(ROW, fields(TEXT), "here")
    assert example.input == "customer: ACME\nThe text: Where is my parcel?"
    assert contents(TEXT, example) == [
        ("system", 'You sort tickets of ACME. Answer as {"desk": {"name": "…"}}.'),
        ("user", "Ticket: Where is my parcel?\nDesk?"),
    ]


def test_one_message_needs_no_heading_and_white_space_in_placeholders_does_not_count() -> None:
    example = example_of(ROW, fields("{{customer|lower}} {{ customer }}"), "here")
    assert contents("{{ customer }}: {{  customer|lower }}", example) == [("user", "ACME: acme")]


def test_demonstrations_are_filled_in_with_their_own_columns() -> None:
    other = example_of({**ROW, "customer": "Other", "The text": "It broke."}, fields(TEXT), "here")
    asked = contents(TEXT, example_of(ROW, fields(TEXT), "here"), other)
    assert [role for role, _ in asked] == ["system", "user", "assistant", "user"]
    assert [content for _, content in asked[1:3]] == ["Ticket: It broke.\nDesk?", "shipping"]
    assert "ACME" in asked[0][1]


@pytest.mark.parametrize(
    ("text", "row", "problem"),
    [
        ("{{ custmer }}", ROW, r"'custmer' is undefined.*the columns are: customer, The text, desk, unused"),
        ("{{ customer }}", {**ROW, "customer": None}, "is null"),
        ("{{ customer }}{{ unused }}", {**ROW, "customer": " ", "unused": ""}, "columns of all placeholders are empty"),
        ("{{ customer.__class__ }}", ROW, "unsafe"),
    ],
)
def test_a_row_that_cannot_be_filled_in_is_refused(text: str, row: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        example_of(row, fields(text), "data.val (val.csv:2)")
    assert caught.value.field == "data.val (val.csv:2)"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Think.", "contains no placeholder"),
        ("{{ 1 + 1 }}", "contains no placeholder of a column"),
        ("{{ }}", "is not a valid template"),
        ("{{ a b }}", "is not a valid template"),
        ("{{ a | random }}", "is not a valid template"),
        ("{% if a %}{{ a }}{% endif %}", "a statement"),
        ("{# note #}{{ a }}", "a comment"),
        ("{{ a }} {{ b", "double braces"),
        ("{{ a }} b}}", "double braces"),
        ("{{ {'a': 1}[a] }}", "double braces"),
        ("{{- a }}", "white space around placeholders"),
        ("{{ a -}}", "white space around placeholders"),
        ("[[user]] {{ a }} [[system]] b", "has the headings"),
        ("[[system]] {{ a }}", "has the headings"),
        ("Hello [[system]] a [[user]] {{ a }}", "text before"),
        ("[[system]] {{ a }} [[user]] ", r"empty message \[\[user\]\]"),
        ("[[system]] [[user]] {{ a }}", r"empty message \[\[system\]\]"),
    ],
)
def test_other_texts_cannot_be_templates(text: str, problem: str) -> None:
    with pytest.raises(AssertionError, match=problem):
        assert initial_problem(text) is None, initial_problem(text)


@pytest.mark.parametrize("text", ["{{ a }}", '{"a": {"b": {{ a }}}}', "{ {{a}} :-}", "100%} {{ a }} #}", TEXT])
def test_braces_that_jinja_does_not_need_are_text(text: str) -> None:
    assert initial_problem(text) is None
    assert form_problem(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[system]] You sort tickets. [[user]] Of: {{ a }} Desk?", "[[system]] Do this. [[user]] Of: {{ a }} Desk?"),
        ("Sort this: {{ a }}", "Do this. {{ a }}"),
        ("{{ a }}\nSort it now.\n{{ b }}", "{{ a }} Do this. {{ b }}"),
        ("{{ a }}", "Do this. {{ a }}"),
    ],
)
def test_the_instruction_of_a_template_can_be_replaced(text: str, expected: str) -> None:
    assert with_instruction(text, "Do this.") == expected


BREAKS: dict[str, Callable[[str, random.Random], str]] = {
    "loses one": lambda text, draw: text.replace(draw.choice(placeholders(text)), "it"),
    "renames one": lambda text, draw: text.replace(
        "customer", draw.choice(["Customer", "customers", "client", "ticket"])
    ),
    "changes quotes": lambda text, _: text.replace('"The text"', "'The text'"),
    "adds one": lambda text, draw: _inserted(
        text, draw, draw.choice(["{{ customer }}", "{{ desk }}", "{{ row }}", "{{}}"])
    ),
    "adds code": lambda text, draw: _inserted(
        text, draw, draw.choice(["{% raw %}", "{#", "{{ ''.__class__ }}", "{{", "{{{"])
    ),
    "breaks a brace": lambda text, draw: text.replace(*draw.choice([("{{ ", "{ "), (" }}", " }"), ("{{ ", "{{\n")])),
    "loses a heading": lambda text, draw: text.replace(draw.choice(headings(text)), ""),
    "repeats a heading": lambda text, draw: _inserted(text, draw, draw.choice(headings(text))),
    "changes a heading": lambda text, _: text.replace("[[user]]", "[[User]]"),
    "swaps the headings": lambda text, _: text.replace("system", "_").replace("user", "system").replace("_", "user"),
    "writes before": lambda text, _: f"Here is the new prompt:\n{text}",
    "is cut": lambda text, draw: text[: draw.randrange(len(text) - 6)],
}


def _inserted(text: str, draw: random.Random, piece: str) -> str:
    words = text.split(" ")
    words.insert(draw.randrange(len(words) + 1), piece)
    return " ".join(words)


@pytest.mark.parametrize("name", BREAKS)
def test_a_new_prompt_that_breaks_a_placeholder_or_a_heading_is_refused(name: str) -> None:
    initial, draw = Prompt(TEXT.replace('row["The text"]', 'row["The text"] | trim')), random.Random(7)
    for _ in range(50):
        broken = BREAKS[name](initial.text, draw)
        assert template_problem(initial, Prompt(broken)), broken


@pytest.mark.parametrize(
    ("new", "problem"),
    [
        ("Sort: {{ a }}", "contains {{ b }} not at all, the initial prompt once"),
        ("Sort: {{ a }} {{ b }} {{ b }}", "contains {{ b }} 2 times, the initial prompt once"),
        ("Sort: {{ a }} {{ b }} {{ c }}", "contains {{ c }} once, the initial prompt not at all"),
        (
            "[[system]] x [[user]] {{ a }} {{ b }}",
            "has other headings than the initial prompt: [[system]] [[user]] instead of none",
        ),
        ("Sort {{b}}, then {{  a }}.", None),
    ],
)
def test_the_difference_to_the_initial_prompt_is_named(new: str, problem: str | None) -> None:
    assert template_problem(Prompt("Sort {{ a }} and {{ b }}."), Prompt(new)) == problem


def test_a_long_or_odd_placeholder_is_quoted_safely() -> None:
    problem = template_problem(Prompt("{{ a }}"), Prompt("{{ a }} {{ \x1b[31m" + "x" * 500 + " }}"))
    assert problem is not None
    assert len(problem) < 150
    assert "\x1b" not in problem


free_text = st.text(st.characters(exclude_characters="{}[]", exclude_categories=("Cs",)), max_size=30)


@settings(max_examples=EXAMPLES)
@given(st.lists(free_text, min_size=3, max_size=3), st.booleans())
def test_fuzz_any_text_around_the_placeholders_is_a_new_prompt(around: list[str], is_swapped: bool) -> None:
    pieces = placeholders(TEXT)[:: -1 if is_swapped else 1]
    text = f"[[system]]x{around[0]}{pieces[0]}{around[1]}[[user]]y{pieces[1]}{around[2]}"
    assert template_problem(INITIAL, Prompt(text)) is None
    assert edit_distance(INITIAL, Prompt(text)) <= len(INITIAL.words) + len(Prompt(text).words)


hostile = st.sampled_from(
    ["{{ 7 * 7 }}", "{% for a in b %}", "{{ ''.__class__.__mro__ }}", "{# a #}", "[[system]]", "[[user]]", "{{", "}}",
     "{{ customer }}", "<script>alert(1)</script>", "\\1", "\\g<0>", "{0}", "%s", "$x", "\n"]
)  # fmt: skip
hostile_texts = st.lists(hostile | st.text(max_size=10), min_size=1, max_size=6).map("".join)


@settings(max_examples=EXAMPLES)
@given(hostile_texts, hostile_texts)
def test_fuzz_values_of_the_data_are_text_and_nothing_else(customer: str, text: str) -> None:
    row = {**ROW, "customer": f"a{customer}", "The text": f"b{text}"}
    example = example_of(row, fields(TEXT), "here")
    assert contents(TEXT, example) == [
        ("system", f'You sort tickets of a{customer}. Answer as {{"desk": {{"name": "…"}}}}.'),
        ("user", f"Ticket: b{text}\nDesk?"),
    ]


@settings(max_examples=EXAMPLES)
@given(hostile_texts)
def test_fuzz_a_hostile_candidate_is_refused_or_shows_its_text_unchanged(piece: str) -> None:
    task = Task(
        "desk", INITIAL, dict.fromkeys(Split, (example_of(ROW, fields(TEXT), "here"),)), ExactScorer(),
        AnswerFormat(Position.TEMPLATE),
    )  # fmt: skip
    candidate = Prompt(f"{TEXT} {piece}")
    if task.prompt_problem(candidate) is None:
        (_, asked) = contents(candidate.text, task.examples[Split.VAL][0])
        assert asked[1] == f"Ticket: Where is my parcel?\nDesk? {piece}".strip()
    else:
        assert any(sign in piece for sign in ("{", "}", "[["))


def test_a_prompt_of_another_position_may_contain_anything() -> None:
    task = Task("desk", Prompt("Sort."), {}, ExactScorer())
    assert task.prompt_problem(Prompt("{{ x }} {% y %} [[user]]")) is None


def test_placeholders_and_headings_are_words_that_cost_nothing_if_unchanged() -> None:
    before = Prompt('[[system]]\nSort.\n[[user]]\n"{{ row["two words"] }}".')
    assert before.words == ("[[system]]", "Sort.", "[[user]]", '"', '{{ row["two words"] }}', '".')
    assert edit_distance(before, Prompt('[[system]] Sort! [[user]]"{{row["two   words"]}}".')) == 1
    assert edit_distance(before, Prompt('[[system]] Sort. [[user]] "{{ a }}".')) == 1


def test_an_example_can_be_written_as_json() -> None:
    example = example_of(ROW, fields(TEXT), "here")
    assert json.loads(json.dumps(example.placeholder_texts)) == [
        ["{{ customer }}", "ACME"],
        ['{{ row["The text"] }}', "Where is my parcel?"],
    ]
